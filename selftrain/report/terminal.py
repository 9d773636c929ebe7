"""The report in a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selftrain.metrics import Estimate
from selftrain.report.charts import ways
from selftrain.report.wording import duration


def summary_table(report: Mapping[str, Any]) -> str:
    """Pools by ways of picking, with intervals, and what the rounds changed. `report`: as in report.json."""
    pools = report["pools"]
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
    changes = [
        row
        for row in report["comparisons"]
        if row["name"].startswith(("system/", "score/")) or "/top_" in row["name"]
    ]
    if changes:
        lines += ["", "paired differences"]
        for row in changes:
            lines.append(f"{row['name']:<38}{row['value']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]")
    total = report["seconds"]["total"]
    if total is not None:
        lines += ["", f"{duration(total)} in all; stages cached: {len(report['cached'])}"]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _cell(estimate: Estimate | None) -> str:
    return f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]" if estimate else "-"
