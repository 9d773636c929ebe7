"""Shows the history of decisions about the champion: as text, as markdown for Prefect, and as an HTML page."""

from collections.abc import Callable, Sequence

from selftrain.champion.registry import Figures, Record, Share
from selftrain.evaluation.comparisons import Comparison
from selftrain.report import charts
from selftrain.report.numbers import signed
from selftrain.report.svg import image_url
from selftrain.report.template import environment, page_style, plot_style
from selftrain.units import duration

HEADINGS = (
    "decision", "time", "challenger", "solved", "champion", "solved", "difference", "random", "oracle", "problems",
    "pass rate", "sandbox errors", "training",
)  # fmt: skip
"""Columns of the table of decisions."""
SOLVED = ("oracle", "challenger", "champion", "random")
"""Curves of the plot of solved problems: names of shares in `Figures`."""
SURROUNDINGS: dict[str, tuple[Callable[[Figures], float], float]] = {
    "Share of the SFT policy's candidates that pass, rl split": (lambda figures: figures.pass_rate, 0.1),
    "Test problems": (lambda figures: figures.problems, 10),
    "Programs that the sandbox could not judge": (lambda figures: figures.sandbox_errors, 10),
    "Training of the challenger's round, seconds": (lambda figures: figures.training_seconds, 10),
}
"""Further plots: label -> getter of the value, and a value that the y axis must include."""


def since(records: Sequence[Record]) -> Record:
    """The record of the decision by which the current champion became champion; the first one while there is no champion."""
    first = records[-1]
    for record in reversed(records):
        if _key(record) != _key(records[-1]):
            break
        first = record
    return first


def history(name: str, records: Sequence[Record]) -> str:
    """Text: the champion, when and why it was promoted, and a table of all decisions."""
    champion, made = records[-1].champion, since(records)
    last = made if champion else records[-1]
    lines = [
        f"champion of {name}: {f'{champion.ranker}  {champion.reranker}' if champion else 'none yet'}",
        f"since {made.time} (record {last.number}, {last.decision}): {last.reason}",
        "",
        f"{'':<4} {'time':<26}{'decision':<18}{'challenger':<16}{'difference':<26}champion after it",
    ]
    for record in records:
        challenger = record.challenger.ranker if record.challenger else "-"
        difference = _difference(record) or "-"
        after = f"{record.champion.ranker}  {_key(record)[:12]}" if record.champion else "none yet"
        lines.append(
            f"{record.number:<4} {record.time:<26}{record.decision:<18}{challenger:<16}{difference:<26}{after}"
        )
    return "\n".join(lines)


def drift_rows(records: Sequence[Record]) -> list[list[str]]:
    """One row per decision; `HEADINGS` are the columns."""
    rows = []
    for record in records:
        row = [f"{record.number}: {record.decision}", record.time]
        against = record.rival or (record.champion if record.challenger is None else None)
        figures = record.figures
        row += [
            record.challenger.ranker if record.challenger else "",
            _solved(figures.challenger if figures else None),
            against.ranker if against else "",
            _solved(figures.champion if figures else None),
            _difference(record),
        ]
        if figures is not None:
            row += [
                f"{figures.random.value:.3f}",
                f"{figures.oracle.value:.3f}",
                str(figures.problems),
                f"{figures.pass_rate:.3f}",
                str(figures.sandbox_errors),
                duration(figures.training_seconds),
            ]
        rows.append(row + [""] * (len(HEADINGS) - len(row)))
    return rows


def drift_markdown(records: Sequence[Record]) -> str:
    """Markdown with the table of `drift_rows` and the plots of shares and differences."""
    rows = [HEADINGS, ["---"] * len(HEADINGS), *drift_rows(records)]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    style = plot_style()
    plots = {
        "Solved by challenger (amber) and champion (blue), between random (grey) and oracle": _solved_chart(
            records
        ),
        "Challenger minus champion, points": _difference_chart(records),
    }
    for title, plot in plots.items():
        if plot is not None:
            lines += ["", f"{title}:", "", f"![{title}]({image_url(plot, style)})"]
    return "\n".join(lines)


def drift_page(name: str, records: Sequence[Record]) -> str:
    """The HTML page; it needs no network."""
    template = environment().get_template("drift.html")
    return template.render(
        name=name,
        style=page_style(),
        champion=records[-1].champion,
        made=since(records),
        solved=_solved_chart(records),
        ways=SOLVED,
        colour=charts.colour,
        differences=_difference_chart(records),
        surroundings=_surroundings(records),
        headings=HEADINGS,
        rows=list(zip(drift_rows(records), [record.reason for record in records], strict=True)),
    )


def _solved_chart(records: Sequence[Record]) -> str | None:
    curves = {}
    for way in SOLVED:
        shares = [(float(r.number), getattr(r.figures, way, None)) for r in records]
        found = [(number, share.value) for number, share in shares if share]
        if found:
            curves[way] = found
    if not curves:
        return None
    return charts.curve_chart("Share of test problems solved", curves, "decision", (0.0, 0.1))


def _difference_chart(records: Sequence[Record]) -> str | None:
    rows: dict[str, Comparison] = {}
    for r in records:
        if r.difference and r.challenger:
            label = f"{r.number}: {r.challenger.ranker}"
            value, low, high = r.difference.value, r.difference.low, r.difference.high
            rows[label] = {"name": label, "value": value, "low": low, "high": high}
    return charts.difference_chart(rows) if rows else None


def _surroundings(records: Sequence[Record]) -> dict[str, str]:
    plots = {}
    for label, (value, room) in SURROUNDINGS.items():
        curve = [(float(record.number), value(record.figures)) for record in records if record.figures]
        if curve:
            plots[label] = charts.curve_chart(label, {"random": curve}, "decision", (0.0, room))
    return plots


def _key(record: Record) -> str:
    """The key of the champion after the decision; empty while there is none."""
    return record.champion.reranker.rpartition("/")[2] if record.champion else ""


def _solved(share: Share | None) -> str:
    return f"{share.value:.3f} [{share.low:.3f}, {share.high:.3f}]" if share else ""


def _difference(record: Record) -> str:
    difference = record.difference
    if difference is None:
        return ""
    value, low, high = (signed(part, 3) for part in (difference.value, difference.low, difference.high))
    return f"{value} [{low}, {high}]"
