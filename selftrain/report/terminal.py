"""Formats a report as text for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from selftrain.evaluation.comparisons import Comparison
from selftrain.evaluation.metrics import Estimate, PoolMetrics
from selftrain.report.charts import ways
from selftrain.report.numbers import run_time


def summary_table(report: Mapping[str, Any]) -> str:
    """`pool_table`, the differences between rounds, and the duration of the run. `report`: content of report.json."""
    lines = [pool_table(report["pools"])]
    changes = [
        row
        for row in report["comparisons"]
        if row["name"].startswith(("system/", "score/")) or "/top_" in row["name"]
    ]
    if changes:
        lines += ["", comparison_table(changes)]
    if report["seconds"]["total"] is not None:
        lines += ["", run_time(report["seconds"], len(report["cached"]))]
    return "\n".join(lines) + "\n"


def pool_table(pools: Mapping[str, PoolMetrics]) -> str:
    """Share of problems that each ranking rule (row) solves in each pool (column), with intervals."""
    overall = {name: pool["overall"] for name, pool in pools.items()}
    rows = list(dict.fromkeys(way for metrics in overall.values() for way in ways(metrics)))
    rows = [way for way in rows if way != "oracle"] + ["oracle"]
    first = next(iter(overall.values()))
    languages = ", ".join(next(iter(pools.values()))["languages"])
    lines = [
        f"{first['problems']} test problems ({languages}), {first['samples']} candidates each",
        "share solved by the pick of each row, with its 95 % interval",
        "",
        " " * 16 + "".join(f"{name:<22}" for name in pools),
    ]
    for way in rows:
        cells = (ways(metrics).get(way) for metrics in overall.values())
        lines.append(f"{way:<16}" + "".join(f"{_cell(cell):<22}" for cell in cells))
    return "\n".join(line.rstrip() for line in lines)


def comparison_table(comparisons: Sequence[Comparison]) -> str:
    """One paired difference per line, with its interval."""
    lines = [
        f"{row['name']:<38}{row['value']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]" for row in comparisons
    ]
    return "\n".join(["paired differences", *lines])


def _cell(estimate: Estimate | None) -> str:
    return f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]" if estimate else "-"
