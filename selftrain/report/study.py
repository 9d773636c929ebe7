"""Writes the table of a study as Markdown, CSV, JSON and SVG."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from selftrain.config import is_reward_model
from selftrain.evaluation.comparisons import Comparison, only
from selftrain.evaluation.metrics import Estimate
from selftrain.evaluation.study import Row, Table
from selftrain.report.charts import difference_chart, share_chart
from selftrain.report.svg import image
from selftrain.report.template import plot_style
from selftrain.store.files import replace_file

SHOWN = (
    "random", "greedy", "logprob", "logprob_sum", "majority", "examples", "agreement", "reranker", "reranker+logprob",
    "reranker+agreement", "chosen", "oracle",
)  # fmt: skip
"""Columns of the Markdown table, where some variant has them. CSV and JSON have all rankers."""
BASELINES = SHOWN.index("reranker")
"""Number of baselines in SHOWN."""
SPLITS = {
    "test": "Split: **test**. Weights of log-probabilities and the ranker `chosen` were chosen on validation problems, in each run "
    "by itself. Choose between variants with `--split validation`, and read this table once.",
    "validation": "Split: **validation**, to choose by. Weights of log-probabilities and the ranker `chosen` were chosen on these "
    "same problems, so `+logprob` and `chosen` look better here than they are.",
}


def write_study(table: Table, name: str, folder: Path, missing: Mapping[str, str]) -> list[Path]:
    """Write SPLIT.md, SPLIT.csv, SPLIT.json and one SPLIT-POOL.svg and SPLIT-POOL-differences.svg per pool; returns their paths.

    name     the study's name
    missing  name of a cell that is not in the table -> why
    """
    split, files = table["split"], {}
    files[f"{split}.md"] = markdown(table, name, missing)
    files[f"{split}.csv"] = csv_text(table)
    files[f"{split}.json"] = json.dumps({"name": name, **table, "missing": dict(missing)}, indent=1) + "\n"
    for pool in _pools(table):
        for kind, markup in _charts(table, pool):
            files[f"{split}-{pool}{kind}.svg"] = image(markup, plot_style())
    for file, text in files.items():
        replace_file(folder / file, text.encode())
    return [folder / file for file in files]


def markdown(table: Table, name: str, missing: Mapping[str, str]) -> str:
    """The table as Markdown: for each pool what is solved, the gains over the baseline variant and over other rules."""
    seeds = ", ".join(f"{variant} {' '.join(map(str, found))}" for variant, found in table["seeds"].items())
    lines = [
        f"# {name}",
        "",
        SPLITS[table["split"]],
        "",
        f"Values are shares of problems whose picked program passes its tests, with 95 % bootstrap intervals ({table['resamples']} "
        "resamples). Tasks are drawn within each seed; a problem that several seeds share is drawn once for all of them. Differences "
        "are paired by problem and seed. Intervals do not cover the variance between training runs: see the values by seed.",
        "",
        f"Seeds: {seeds}.",
    ]
    lines += [f"Not in the table: {cell} ({why})." for cell, why in missing.items()]
    for pool in _pools(table):
        rows = [row for row in table["rows"] if row["pool"] == pool]
        shown = columns(rows)
        lines += ["", f"## Pool {pool}", "", "### Solved", ""]
        lines += _grid([row for row in rows if row["minus"] is None], shown)
        base = table["baseline"]
        over = [row for row in rows if row["minus"] == (base, row["ranker"]) and row["variant"] != base]
        if over:
            chosen = [ranker for ranker in shown if ranker == "random" or ranker not in SHOWN[:BASELINES]]
            lines += ["", f"### Difference to {base}", "", *_grid(over, chosen, signed=True)]
        lines += ["", "### Difference to other rules of the same variant", ""]
        within = [row for row in rows if row["minus"] and row["minus"][0] == row["variant"]]
        lines += _grid(within, shown, signed=True)
        further = [row for row in rows if row["minus"] and row not in over and row not in within]
        if further:
            lines += ["", "### Further differences", "", *_list(further)]
    return "\n".join(lines) + "\n"


def columns(rows: Iterable[Row]) -> list[str]:
    """The rankers of `rows` that the Markdown table shows: those of SHOWN, with the reward models of others after the baselines."""
    there = {row["ranker"]: None for row in rows}
    others = [name for name in there if is_reward_model(name)]
    return [name for name in (*SHOWN[:BASELINES], *others, *SHOWN[BASELINES:]) if name in there]


def _grid(rows: list[Row], rankers: list[str], *, signed: bool = False) -> Iterator[str]:
    """A Markdown table: a line for each variant (and rule that is subtracted), a column for each ranker."""
    cells: dict[str, dict[str, Row]] = {}
    for row in rows:
        within = row["minus"] is not None and row["minus"][0] == row["variant"]
        label = f"{row['variant']}, over {row['minus'][1]}" if within and row["minus"] else row["variant"]
        cells.setdefault(label, {})[row["ranker"]] = row
    rankers = [ranker for ranker in rankers if any(ranker in line for line in cells.values())]
    yield f"| variant | problems | {' | '.join(rankers)} |"
    yield "|---" * (len(rankers) + 2) + "|"
    for label, line in cells.items():
        problems = max(row["problems"] for row in line.values())
        text = [_cell(line[ranker], signed) if ranker in line else "" for ranker in rankers]
        yield f"| {label} | {problems} | {' | '.join(text)} |"


def _list(rows: list[Row]) -> Iterator[str]:
    """A Markdown table with a line for each row."""
    yield "| ranker | over | problems | difference |"
    yield "|---|---|---|---|"
    for row in rows:
        other = "/".join(row["minus"] or ())
        yield f"| {row['variant']}/{row['ranker']} | {other} | {row['problems']} | {_cell(row, True)} |"


def _cell(row: Row, signed: bool) -> str:
    form = "+.3f" if signed else ".3f"
    seeds = ", ".join(format(value, form) for value in row["by_seed"].values())
    by_seed = f" (by seed {seeds})" if signed and len(row["by_seed"]) > 1 else ""
    return f"{row['value']:{form}} [{row['low']:{form}}, {row['high']:{form}}]{by_seed}"


def csv_text(table: Table) -> str:
    """All rows as CSV, with the split in each; `minus_*` are empty for shares, `by_seed` is `SEED:VALUE ...`."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["split", "variant", "pool", "ranker", "minus_variant", "minus_ranker", "problems", "value", "low", "high", "by_seed"]
    )  # fmt: skip
    for row in table["rows"]:
        numbers = [repr(row[name]) for name in ("value", "low", "high")]
        by_seed = " ".join(f"{seed}:{value!r}" for seed, value in row["by_seed"].items())
        minus = row["minus"] or ("", "")
        place = [table["split"], row["variant"], row["pool"], row["ranker"], *minus, row["problems"]]
        writer.writerow([*place, *numbers, by_seed])
    return out.getvalue()


def _pools(table: Table) -> list[str]:
    return list(dict.fromkeys(row["pool"] for row in table["rows"]))


def _charts(table: Table, pool: str) -> Iterator[tuple[str, str]]:
    """End of the file's name and markup of each plot: the ranker `chosen`, or the last one, of each variant, and its difference."""
    rows = [row for row in table["rows"] if row["pool"] == pool]
    rankers = {row["ranker"] for row in rows}
    ranker = "chosen" if "chosen" in rankers else rows[-1]["ranker"]
    shares: dict[str, Estimate] = {
        row["variant"]: row for row in rows if row["ranker"] == ranker and row["minus"] is None
    }
    base = table["baseline"]
    yield "", share_chart(f"Share of {table['split']} problems that {ranker} solves, pool {pool}", shares)
    over: dict[str, Comparison] = {
        row["variant"]: {"name": row["variant"], **only(row)}
        for row in rows
        if row["minus"] == (base, ranker) and row["variant"] != base
    }
    if over:
        yield "-differences", difference_chart(over, label=f"{ranker}: paired differences to {base}")
