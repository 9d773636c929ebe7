"""Draws the report's plots as SVG.

A colour stands for a round (rm-1, ppo-1), grey for ranking rules without a reranker, a ring for +logprob.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np

from selftrain.evaluation.calibration import Bin
from selftrain.evaluation.comparisons import Comparison
from selftrain.evaluation.metrics import Estimate, Metrics, PoolMetrics
from selftrain.evaluation.pools import WITH_LOGPROB, Floats, Pool
from selftrain.report.numbers import interval, percent, signed
from selftrain.report.svg import CHARACTER, FONT, Drawing, Scale, nice_scale, tick_label
from selftrain.units import duration

WIDTH = 340.0
"""Width of a plot in pixels. On a page of 400 pixels it is not scaled down, so that its text keeps its size."""
COLOURS = 6
"""Number of colours for rounds; further rounds repeat the colours."""
KINDS = ("easy", "on_policy", "hard_negative", "random")
"""Kinds of mined pairs, in the order in which bars are stacked."""


def colour(name: str) -> str:
    """CSS classes for a ranking rule, a ranker or a generator."""
    match = re.match(r"(?:rm|ppo)-(\d+)", name)
    hollow = " hollow" if name.endswith(WITH_LOGPROB) else ""
    if not match:
        return f"way-{name.removesuffix(WITH_LOGPROB)}{hollow}"
    return f"round-{(int(match[1]) - 1) % COLOURS + 1}{hollow}"


def ways(metrics: Metrics) -> dict[str, Estimate]:
    """Ranking rule -> its estimate, for all rules in `metrics`: baselines first, oracle last."""
    baselines = ("random", "greedy", "logprob", "logprob_sum", "majority", "examples")
    known: dict[str, Estimate | None] = {way: cast(Any, metrics).get(way) for way in baselines}
    return {
        **{way: estimate for way, estimate in known.items() if estimate is not None},
        **metrics["rankers"],
        "oracle": metrics["oracle"],
    }


def pick_chart(pool: str, metrics: Metrics, chosen: str) -> str:
    """One row per ranking rule: a dot with its interval, over a band from random to oracle. `chosen` is emphasised."""
    rows = ways(metrics)
    x, top, pitch = Scale(0, 1, 104, 210), 6, 22
    bottom = top + pitch * len(rows)
    drawing = Drawing(WIDTH, bottom + 20, f"Share of problems solved, pool {pool}, by way of picking")
    low, high = x(metrics["random"]["value"]), x(metrics["oracle"]["value"])
    drawing.rect(low, top, high - low, bottom - top, "band", "between a random pick and the oracle")
    _percent_axis(drawing, x, top, bottom)
    for row, (way, estimate) in enumerate(rows.items()):
        y = top + pitch * (row + 0.5)
        css = "chosen" if way == chosen else ""
        drawing.text((96, y + 4), way, css, "end")
        drawing.line((x(estimate["low"]), y), (x(estimate["high"]), y), f"whisker {colour(way)}")
        drawing.circle((x(estimate["value"]), y), 5, f"dot {colour(way)}", _tip(way, estimate))
        number = f"{100 * estimate['value']:.1f} {interval(estimate)}"
        drawing.text((WIDTH - 2, y + 4), number, f"number {css}", "end")
    return drawing.markup()


def best_of_chart(pool: str, metrics: Metrics, shown: Sequence[str]) -> str:
    """One line per ranking rule in `shown` that picks from k candidates, and the oracle's: shares of problems solved, by k."""
    curves = metrics["best_of"] | {name: row["best_of"] for name, row in metrics["rankers"].items()}
    points = {
        way: [(float(k), estimate["value"]) for k, estimate in curves[way].items()]
        for way in [*shown, "oracle"]
        if way in curves
    }
    return curve_chart(
        f"Share of problems solved by the pick from k candidates, pool {pool}", points, "k", (0.0,)
    )


def language_chart(pool: str, metrics: PoolMetrics, shown: Sequence[str]) -> str:
    """One group of bars per language, with one bar per ranking rule in `shown`; the pale bar behind a group is the oracle."""
    x, top, bar, gap = Scale(0, 1, 44, 310), 6, 15, 16
    group = bar * len(shown) + gap
    bottom = top + group * len(metrics["languages"])
    drawing = Drawing(WIDTH, bottom + 20, f"Share of problems solved by language, pool {pool}")
    _percent_axis(drawing, x, top, bottom)
    for number, (language, part) in enumerate(metrics["languages"].items()):
        y = top + number * group + gap / 2
        estimates = ways(part)
        oracle = estimates["oracle"]
        drawing.rect(
            x(0), y - 2, x(oracle["value"]) - x(0), group - gap + 4, "oracle-bar", _tip("oracle", oracle)
        )
        drawing.text((38, y + (group - gap) / 2 + 4), language, "", "end")
        for row, way in enumerate(shown):
            estimate, middle = estimates[way], y + bar * (row + 0.5)
            width = x(estimate["value"]) - x(0)
            drawing.rect(
                x(0), middle - bar / 2 + 1.5, width, bar - 3, f"bar {colour(way)}", _tip(way, estimate)
            )
            drawing.line((x(estimate["low"]), middle), (x(estimate["high"]), middle), "whisker-thin")
            drawing.text((WIDTH - 2, middle + 4), f"{100 * estimate['value']:.0f}", "number", "end")
    return drawing.markup()


def score_chart(pool: Pool, ranker: str) -> str:
    """Histograms of a ranker's scores: shares of the passing candidates, and shares of the failing ones."""
    scores = np.concatenate([problem.scores[ranker] for problem in pool.problems])
    passed = np.concatenate([problem.passed for problem in pool.problems])
    # Without outliers, which would squeeze all other scores together.
    low, high = np.percentile(scores, [0.5, 99.5])
    x = nice_scale([float(low), float(high)], 10, WIDTH - 10)
    edges = np.linspace(x.low, x.high, 37)
    inside = np.clip(scores, x.low, x.high)
    shares = [_histogram(inside[passed], edges), _histogram(inside[~passed], edges)]
    y = Scale(0, max(float(np.max(share)) for share in shares), 122, 10)
    drawing = Drawing(WIDTH, 142, f"Scores of {ranker} on passing and failing candidates of pool {pool.name}")
    _x_axis(drawing, x, 10, 122)
    for share, css in zip(shares, ("passing", "failing"), strict=True):
        outline = [(x(edge), y(value)) for i, value in enumerate(share) for edge in (edges[i], edges[i + 1])]
        drawing.path([(x.start, y.start), *outline, (x.end, y.start)], f"area {css}", closed=True)
    return drawing.markup()


def curve_chart(
    label: str,
    curves: Mapping[str, Sequence[tuple[float, float]]],
    unit: str = "PPO step",
    holds: Sequence[float] = (),
) -> str:
    """One line per curve.

    curves  name -> (x, y) points
    unit    label of the x axis, on which only whole numbers are ticks
    holds   values that the y axis must include
    """
    points = [point for curve in curves.values() for point in curve]
    x = nice_scale([step for step, _ in points], 46, WIDTH - 10, at_least=1)
    x = replace(x, ticks=tuple(tick for tick in x.ticks if abs(tick - round(tick)) < 1e-9))
    shown = [value for _, value in points] + ([0.0] if label.startswith("KL") else [])
    y = nice_scale([*shown, *holds], 140, 10)
    drawing = Drawing(WIDTH, 160, f"{label}, by {unit}")
    _x_axis(drawing, x, 10, 140)
    for tick in y.ticks:
        drawing.line((x.start, y(tick)), (x.end, y(tick)), "grid")
        drawing.text((40, y(tick) + 4), tick_label(tick), "axis", "end")
    for name, curve in curves.items():
        drawing.path([(x(step), y(value)) for step, value in curve], f"curve {colour(name)}")
        last = curve[-1]
        drawing.circle(
            (x(last[0]), y(last[1])), 3, f"dot {colour(name)}", f"{name}: {last[1]:.4g} at {unit} {last[0]:g}"
        )
    return drawing.markup()


def reliability_chart(label: str, bins: Mapping[str, Sequence[Bin]]) -> str:
    """One dot per bin: its mean chance of passing (across) and the share that passes (up), which are equal on the diagonal.

    bins  CSS class of the dots -> bins
    """
    x, y = Scale(0, 1, 46, 326), Scale(0, 1, 190, 10)
    drawing = Drawing(WIDTH, 210, label)
    _percent_axis(drawing, x, 10, 190)
    for share in (0, 0.25, 0.5, 0.75, 1):
        drawing.line((x.start, y(share)), (x.end, y(share)), "grid")
        drawing.text((40, y(share) + 4), f"{100 * share:.0f}", "axis", "end")
    drawing.line((x(0), y(0)), (x(1), y(1)), "diagonal")
    for css, found in bins.items():
        for one in found:
            tip = f"chance {percent(one['chance'])}, {percent(one['passed'])} of {one['candidates']} pass"
            drawing.circle((x(one["chance"]), y(one["passed"])), 4, f"dot {css}", tip)
    return drawing.markup()


def pairs_chart(pairs: Mapping[str, Mapping[str, int]]) -> str:
    """One bar per round: number of mined pairs, stacked by kind. `pairs`: round -> kind -> number."""
    top, pitch = 4, 30
    totals = [sum(kinds.values()) for kinds in pairs.values()]
    x = Scale(0, max([*totals, 1]), 62, 290)
    drawing = Drawing(WIDTH, top + pitch * len(pairs), "Pairs mined by round and kind")
    for row, (name, kinds) in enumerate(pairs.items()):
        y, at = top + pitch * row, 0
        drawing.text((56, y + 16), f"round {name}", "", "end")
        for kind in filter(kinds.get, KINDS):
            count = kinds[kind]
            drawing.rect(x(at), y + 2, x(at + count) - x(at), 20, f"kind-{kind}", f"{kind}: {count}")
            at += count
        drawing.text((WIDTH - 2, y + 16), f"{at:,}".replace(",", "\N{THIN SPACE}"), "number", "end")
    return drawing.markup()


def seconds_chart(seconds: Mapping[str, float]) -> str:
    """One bar per stage, in running order. `seconds`: stage -> seconds."""
    top, pitch, left = 4, 20, _label_width(seconds, 126)
    x = Scale(0, max([*seconds.values(), 1e-9]), left, max(WIDTH - 78, left + 60))
    drawing = Drawing(WIDTH, top + pitch * len(seconds), "Time per stage")
    for row, (stage, value) in enumerate(seconds.items()):
        y = top + pitch * row
        drawing.text((left - 6, y + 13), stage, "", "end")
        drawing.rect(
            x(0), y + 3, max(x(value) - x(0), 1), pitch - 7, "bar time", f"{stage}: {duration(value)}"
        )
        drawing.text((x(value) + 6, y + 13), duration(value), "number")
    return drawing.markup()


def difference_chart(
    rows: Mapping[str, Comparison], *, shares: bool = True, label: str = "Paired differences"
) -> str:
    """Two lines per paired difference: its name and numbers, and a dot with its interval; a vertical line marks 0.

    shares  show values in percentage points
    label   text for screen readers
    """
    factor, digits = (100.0, 1) if shares else (1.0, 2)
    bounds = [factor * row[end] for row in rows.values() for end in ("low", "high")]
    top, pitch = 4, 42
    numbers = {name: _signed(row, factor, digits) for name, row in rows.items()}
    # Name and numbers share a line.
    width = max([WIDTH, *(_label_width([f"{name} {text}"], 0) for name, text in numbers.items())])
    x = nice_scale([*bounds, 0.0], 14, width - 14, at_least=0.1)
    bottom = top + pitch * len(rows)
    drawing = Drawing(width, bottom + 20, label)
    _x_axis(drawing, x, top, bottom)
    drawing.line((x(0), top), (x(0), bottom), "zero")
    for at, (name, row) in enumerate(rows.items()):
        y = top + pitch * at
        value, low, high = (factor * row[part] for part in ("value", "low", "high"))
        css = "gain" if low > 0 else "loss" if high < 0 else "unsure"
        drawing.text((0, y + 14), name, "on-grid")
        drawing.text((width - 2, y + 14), numbers[name], "number on-grid", "end")
        drawing.line((x(low), y + 28), (x(high), y + 28), f"whisker {css}")
        drawing.circle((x(value), y + 28), 5, f"dot {css}", f"{name}: {numbers[name]}")
    return drawing.markup()


def share_chart(label: str, rows: Mapping[str, Estimate]) -> str:
    """One row per entry: a dot with its interval on a scale from 0 to 1. `label`: text for screen readers."""
    top, pitch, left = 4, 24, _label_width(rows, 172)
    x = Scale(0, 1, left, left + 200)
    bottom = top + pitch * len(rows)
    drawing = Drawing(left + 248, bottom + 20, label)
    _percent_axis(drawing, x, top, bottom)
    for number, (name, estimate) in enumerate(rows.items()):
        y = top + pitch * (number + 0.5)
        drawing.text((left - 10, y + 4), name, "", "end")
        drawing.line((x(estimate["low"]), y), (x(estimate["high"]), y), "whisker round-1")
        drawing.circle((x(estimate["value"]), y), 5, "dot round-1", _tip(name, estimate))
        drawing.text((left + 246, y + 4), f"{100 * estimate['value']:.1f}", "number", "end")
    return drawing.markup()


def _label_width(labels: Iterable[str], at_least: float) -> float:
    """Width in pixels of a column of labels."""
    return max(at_least, 10 + FONT * CHARACTER * max(map(len, labels), default=0))


def _signed(row: Estimate, factor: float, digits: int) -> str:
    """A difference and its interval as numbers: `+10.4 [+2.0, +18.8]`."""
    value, low, high = (signed(factor * row[part], digits) for part in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _percent_axis(drawing: Drawing, x: Scale, top: float, bottom: float) -> None:
    for share in (0, 0.25, 0.5, 0.75, 1):
        drawing.line((x(share), top), (x(share), bottom), "grid")
        drawing.text((x(share), bottom + 14), f"{100 * share:.0f}", "axis", "middle")


def _x_axis(drawing: Drawing, x: Scale, top: float, bottom: float) -> None:
    for tick in x.ticks:
        drawing.line((x(tick), top), (x(tick), bottom), "grid")
        drawing.text((x(tick), bottom + 15), tick_label(tick), "axis", "middle")


def _tip(name: str, estimate: Estimate) -> str:
    return f"{name}: {percent(estimate['value'])} {interval(estimate)}"


def _histogram(scores: Floats, edges: Floats) -> Floats:
    """Share of the scores in each bin; all zero if there are no scores."""
    counts = np.histogram(scores, edges)[0].astype(np.float64)
    return counts / max(len(scores), 1)
