"""Shows a run in the Prefect UI: progress, log lines of child processes, tables of metrics, the report.

If the server does not accept an artifact, that is logged and the stage continues.
"""

import json
import logging
import re
import time
from collections.abc import Iterator
from typing import Any, Self

import httpx
from prefect import get_run_logger
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.exceptions import PrefectException

from tasks.part import Part
from tasks.progress import Pace, describe, watch
from tasks.run import LOGGER, Run, Step

SECONDS_BETWEEN_UPDATES = 5.0
NOT_SHOWN = (PrefectException, httpx.HTTPError, OSError)
"""Errors of the Prefect server or the network, which are logged and do not fail the stage."""


def show_table(run: Run, step: Step, manifest: dict[str, Any]) -> None:
    """Create a table artifact with the stage's metrics. Its key, e.g. `demo-rm-1`, is the same in each run of one name, so the UI
    shows a history."""
    rows = [
        {"figure": name, "value": f"{value:.4g}" if isinstance(value, float) else value}
        for name, value in figures(manifest.get("metrics") or {})
    ]
    rows += [
        {"figure": "seconds in all", "value": round(manifest.get("seconds", 0.0), 1)},
        {"figure": "key", "value": step.ref.key},
    ]
    key = artifact_key(run.config.name, step.name)
    try:
        create_table_artifact(rows, key=key, description=step.label)
    except NOT_SHOWN as error:
        LOGGER.warning("cannot create the table artifact of %s: %s", step.label, error)


def figures(metrics: dict[str, Any]) -> Iterator[tuple[str, int | float | str]]:
    """The scalar values of a manifest's metrics; a value inside a dict is named `name.key`. Lists (curves) are left out."""
    for name, value in metrics.items():
        if isinstance(value, dict):
            yield from figures({f"{name}.{key}": item for key, item in value.items()})
        elif isinstance(value, int | float | str):
            yield name, value


def artifact_key(*names: str) -> str:
    """`names`, the first of which is the config's, in the characters that Prefect allows in an artifact's key: lower-case letters,
    digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(names).lower())


def task_name(label: str) -> str:
    """`label` without braces, which Prefect would read as a template in a task run's name."""
    return label.replace("{", "").replace("}", "")


def show_markdown(run: Run, what: str, text: str) -> None:
    """Log the first line of `text`, and create a markdown artifact of all of it: `what` of the run."""
    get_run_logger().info("%s", text.partition("\n")[0].strip("*"))
    key, description = artifact_key(run.config.name, what), f"{what} of {run.config.name}"
    try:
        create_markdown_artifact(text, key=key, description=description)
    except NOT_SHOWN as error:
        LOGGER.warning("cannot create the artifact %s: %s", key, error)


def show_report(run: Run, step: Step) -> None:
    """Create an artifact with the report's table and plots, and the address of report.html."""
    from selftrain.report.build import plots
    from selftrain.report.terminal import summary_table

    folder = run.path(step.ref)
    table = summary_table(json.loads((folder / "report.json").read_text()))
    images = "\n\n".join(f"**{label}**\n\n![{label}]({image})" for label, image in plots(folder))
    where = f"report.html of {run.config.name}: {run.store.url}/{step.ref}, and in the run's folder {run.out}"
    show_markdown(run, "report", f"**{where}**\n\n```\n{table}```\n\n{images}\n")


class ChildLog:
    """Passes lines that child processes print to a logger, each at its own level. Lines above a rate limit are only counted."""

    LONGEST = 2000
    """Number of characters of a line that are logged; the rest is cut."""
    BURST, PER_SECOND = 200, 10
    """Rate limit: number of lines that may come at once, and lines per second after those."""

    def __init__(self, logger: Any) -> None:
        self.logger = logger
        self.left, self.left_out = float(self.BURST), 0
        self.last = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._tell_left_out()

    def __call__(self, line: str) -> None:
        now = time.monotonic()
        self.left = min(self.BURST, self.left + (now - self.last) * self.PER_SECOND)
        self.last = now
        if self.left < 1:
            self.left_out += 1
            return
        self._tell_left_out()
        self.left -= 1
        self.logger.log(level_of(line), "%s", line[: self.LONGEST])

    def _tell_left_out(self) -> None:
        if self.left_out:
            self.logger.info("(%d lines left out)", self.left_out)
            self.left_out = 0


BAR = re.compile(r"\d+%\|.*\| [\d.]+\w*/[\d.]+\w* \[")
"""Matches a line of a progress bar; it is logged at level DEBUG, since the stage reports its progress itself."""
LEVEL = re.compile(r"\b(WARNING|ERROR|CRITICAL)\b|^\w*(Warning|Error)\b:|: \w+(Warning): ")


def level_of(line: str) -> int:
    """The logging level named in a log line or in an interpreter's message; DEBUG for progress bars, otherwise INFO."""
    if BAR.search(line):
        return logging.DEBUG
    found = LEVEL.search(line)
    name = next(filter(None, found.groups())) if found else "INFO"
    return int(logging.getLevelName(name.upper()))


class Progress:
    """Progress on the terminal and, every few seconds, as a Prefect progress artifact and a log line."""

    def __init__(self, run: str, step: Step | Part, logger: Any) -> None:
        self.run = run  # the config's name
        self.step = step
        self.logger = logger
        # Where the console shows the log, as under a worker, it shows the log's lines, which have their time.
        shown = any(handler.level <= logging.INFO for handler in logging.getLogger().handlers)
        self.terminal = None if shown and logger.isEnabledFor(logging.INFO) else watch(step.label)
        self.pace = Pace()
        self.last = time.monotonic()
        self.finished = False
        self.artifact: Any = None

    def __call__(
        self, done: float, total: float, unit: str = "", figures: dict[str, Any] | None = None
    ) -> None:
        if self.terminal is not None:
            self.terminal(done, total, unit, figures)
        rate = self.pace(done)
        now = time.monotonic()
        # The end is shown even if the whole stage takes less time than one update.
        finished = done >= total and not self.finished
        if not total or (now - self.last < SECONDS_BETWEEN_UPDATES and not finished):
            return
        self.last, self.finished = now, done >= total
        text = describe(self.step.label, done, total, unit, rate, figures or {})
        try:
            if self.artifact is None:
                key = artifact_key(self.run, self.step.name, "progress")
                self.artifact = create_progress_artifact(100 * done / total, key=key, description=text)
            else:
                update_progress_artifact(self.artifact, 100 * done / total, description=text)
        except NOT_SHOWN as error:
            LOGGER.debug("cannot update the progress artifact: %s", error)
        self.logger.info("%s", text)
