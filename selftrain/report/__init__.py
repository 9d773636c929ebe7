"""The report of a run: report.json, report.html, report.csv, and tables for the terminal."""
