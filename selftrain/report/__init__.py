"""The report of a run: report.json, report.html, report.csv, and tables for the terminal."""

from selftrain.report.build import build_report, finish_report
from selftrain.report.page import ReportInputs
from selftrain.report.plots import plots
from selftrain.report.terminal import comparison_table, pool_table, summary_table

__all__ = [
    "ReportInputs",
    "build_report",
    "comparison_table",
    "finish_report",
    "plots",
    "pool_table",
    "summary_table",
]
