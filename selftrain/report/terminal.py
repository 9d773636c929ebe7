"""Formats a report as text for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from selftrain.evaluation.comparisons import Comparison, headline_text
from selftrain.evaluation.metrics import Estimate, Metrics, PoolMetrics
from selftrain.report.charts import ways
from selftrain.report.numbers import run_time
from selftrain.units import count_of


def summary_table(report: Mapping[str, Any]) -> str:
    """`pool_table`, the differences between rounds, and the duration of the run. `report`: content of report.json."""
    lines = [pool_table(report["pools"])]
    if found := report.get("headline", {}).get(report.get("chosen")):
        lines += ["", headline_text(report["chosen"], found)]
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


def pool_table(pools: Mapping[str, PoolMetrics], title: str = "") -> str:
    """Share of problems that each ranking rule (row) solves in each pool (column), with intervals.

    title  the first line; empty: the numbers of test problems and of candidates
    """
    overall = {name: pool["overall"] for name, pool in pools.items()}
    first = next(iter(overall.values()))
    languages = ", ".join(next(iter(pools.values()))["languages"])
    lines = [
        title
        or f"{count_of(first['problems'], 'test problem')} ({languages}), {count_of(first['samples'], 'candidate')} each",
        "share solved by the pick of each row, with its 95 % interval",
        "",
        _table({name: ways(metrics) for name, metrics in overall.items()}),
    ]
    return "\n".join(lines)


def language_table(pool: PoolMetrics) -> str:
    """Share of problems that each ranking rule (row) solves in each language (column), with intervals."""
    columns = {
        f"{name} ({metrics['problems']})": ways(metrics) for name, metrics in pool["languages"].items()
    }
    return "\n".join(["share solved by language (number of problems)", "", _table(columns)])


def best_of_table(metrics: Metrics) -> str:
    """Share of problems that each ranking rule solves (row) where it picks from k candidates (column); `oracle` is pass@k."""
    curves = metrics["best_of"] | {name: row["best_of"] for name, row in metrics["rankers"].items()}
    rows = {name: curve for name, curve in curves.items() if curve}
    columns = {
        f"k = {k}": {name: curve[k] for name, curve in rows.items()} for k in metrics["best_of"]["oracle"]
    }
    return "\n".join(["share solved by the pick from k candidates; oracle: pass@k", "", _table(columns)])


def _table(columns: Mapping[str, Mapping[str, Estimate]]) -> str:
    """A row for each ranking rule, the oracle last, in columns as wide as the longest cell."""
    rows = list(dict.fromkeys(way for column in columns.values() for way in column))
    rows = [way for way in rows if way != "oracle"] + ["oracle"]
    first = max(16, *(len(way) + 2 for way in rows))
    lines = [" " * first + "".join(f"{name:<22}" for name in columns)]
    for way in rows:
        cells = (column.get(way) for column in columns.values())
        lines.append(f"{way:<{first}}" + "".join(f"{_cell(cell):<22}" for cell in cells))
    return "\n".join(line.rstrip() for line in lines)


def comparison_table(comparisons: Sequence[Comparison]) -> str:
    """One paired difference per line, with its interval."""
    first = max(38, *(len(row["name"]) + 2 for row in comparisons))
    lines = [
        f"{row['name']:<{first}}{row['value']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
        for row in comparisons
    ]
    return "\n".join(["paired differences", *lines])


def _cell(estimate: Estimate | None) -> str:
    return f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]" if estimate else "-"
