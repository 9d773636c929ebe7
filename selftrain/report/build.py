"""Writes the files report.json, report.html and report.csv of a run, and reads the plots in them."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from selftrain.errors import RunError
from selftrain.evaluation.comparisons import best_untrained
from selftrain.report.browse import problem_table
from selftrain.report.numbers import run_time
from selftrain.report.page import ReportInputs, render
from selftrain.report.svg import image_url
from selftrain.report.template import plot_style
from selftrain.store.files import replace_file

JSON_NAME = "report.json"
HTML_NAME = "report.html"
CSV_NAME = "report.csv"
_RUN_TEXT = re.compile(r"(<!--run-->).*?(<!--/run-->)", re.DOTALL)


def build_report(inputs: ReportInputs, out: Path) -> None:
    """Write `report.json`, `report.html` and `report.csv`, which has a row for each problem of each pool, to the folder `out`.

    The report is a cached artifact, so it must not depend on the run that builds it. `seconds.total` is therefore null and
    `cached` empty, until `finish_report` fills them in.
    """
    report = {
        "config": dict(inputs.config),
        "problems": dict(inputs.problems),
        "seconds": {"total": None, **inputs.seconds},
        "cached": [],
        "chosen": inputs.chosen,
        "headline": dict(inputs.headline),
        "pools": inputs.evaluation["pools"],
        "comparisons": inputs.evaluation["comparisons"],
    }
    _write(out / JSON_NAME, json.dumps(report, indent=2, allow_nan=False) + "\n")
    _write(out / HTML_NAME, render(inputs))
    rival = best_untrained(inputs.evaluation["pools"][inputs.pools[0].name]["overall"])
    _write(out / CSV_NAME, problem_table(inputs.pools, inputs.chosen, rival))


def finish_report(
    folder: Path,
    total_seconds: float,
    report_seconds: float,
    cached: Sequence[str],
    git_commit: str | None = None,
) -> dict[str, Any]:
    """Fill in the run's facts in both files of `folder`; returns the content of report.json.

    total_seconds   wall time of the run
    report_seconds  wall time of stage `report`
    cached          names of the stages that were cache hits
    git_commit      commit of the code that ran, None if it is not known

    May be called again on the same folder, with other values. Raises RunError if the folder has no report.
    """
    try:
        report: dict[str, Any] = json.loads((folder / JSON_NAME).read_text("utf-8"))
        html = (folder / HTML_NAME).read_text("utf-8")
    except (OSError, ValueError) as error:
        message = f"{folder}: expected {JSON_NAME} and {HTML_NAME}, got: {error}; run the same `selftrain run` again"
        raise RunError(message) from error
    report["seconds"]["total"] = round(total_seconds, 3)
    report["seconds"]["report"] = round(report_seconds, 3)
    report["cached"] = list(cached)
    report["git_commit"] = git_commit
    said = run_time(report["seconds"], len(cached))
    text = f"{said[0].upper()}{said[1:]}."
    if git_commit:
        text += f" Its code: commit {git_commit}."
    _write(folder / JSON_NAME, json.dumps(report, indent=2, allow_nan=False) + "\n")
    _write(folder / HTML_NAME, _RUN_TEXT.sub(rf"\g<1>{text}\g<2>", html, count=1))
    return report


def plots(folder: Path) -> list[tuple[str, str]]:
    """(label, `data:` URL of the image) of each plot of the report in `folder`, in the order of the page.

    Raises OSError if there is no report.
    """
    style = plot_style()
    page = (folder / HTML_NAME).read_text("utf-8")
    found = re.findall(r'(<svg [^>]*?aria-label="([^"]*)".*?</svg>)', page, flags=re.DOTALL)
    return [(label, image_url(markup, style)) for markup, label in found]


def _write(path: Path, text: str) -> None:
    """Write a file atomically. Lone surrogates, which models may generate, become character references."""
    replace_file(path, text.encode("utf-8", errors="xmlcharrefreplace"))
