"""Carries out a run's steps as Prefect tasks: cached by the stage's key, retried where the failure is not the user's.

The manifest in the store is the truth. Prefect's own result is the reference only; it is what makes a finished step show
as Cached in the UI. Where the store does not hold the artifact any more, the task is called with `refresh_cache`.
"""

import contextvars
import importlib.util
import json
import logging
import re
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import httpx
from prefect import get_run_logger, task
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import CacheKeyFnPolicy
from prefect.exceptions import PrefectException
from prefect.filesystems import RemoteFileSystem
from prefect.settings import PREFECT_API_URL
from prefect.tasks import exponential_backoff

from sandbox.errors import SandboxError
from selftrain.errors import SelftrainError, UsageError
from selftrain.launch.ending import ENDING
from selftrain.stage import Context, fingerprint
from selftrain.store.files import PATIENT
from selftrain.store.store import Store, cache_folder
from tasks.part import Part
from tasks.progress import Pace, describe, watch
from tasks.run import Run, Step
from tasks.track import track

SECONDS_BETWEEN_UPDATES = 5.0
NOT_SHOWN = (PrefectException, httpx.HTTPError, OSError)
"""What keeps a figure from being shown; no reason to lose the work that it tells of."""


class PrefectRun(Run):
    """A run inside a flow: each step is a task run."""

    def __post_init__(self) -> None:
        if self.config.runtime.dask is not None:
            check_dask()

    def share(self, step: Step, context: Context) -> None:
        """With `runtime.dask`, each part of the step's shards is a task run too, on a Dask worker."""
        if self.config.runtime.dask is not None:
            from tasks.dask import share_out

            share_out(self, step, context)

    @cached_property
    def result_storage(self) -> Path | RemoteFileSystem:
        """See `result_storage`; found out once."""
        return result_storage(self.store)

    def execute(self, step: Step, there: bool) -> None:
        """Run the step as a task; Cached where `there` and Prefect knows it."""
        ENDING.doing = step.label
        self.flow_context = contextvars.copy_context()
        make_artifact.with_options(
            name=step.stage.name,
            task_run_name=task_name(step.label),
            tags=list(step.tags),
            retries=step.retries,
            # Here, since the task makes its list of delays of it at once, for the number of retries that it has then.
            retry_delay_seconds=exponential_backoff(backoff_factor=5),
            refresh_cache=not there,
            result_storage=self.result_storage,
        )(self, step)


def check_dask() -> None:
    """Raise UsageError where a run could not share out its work."""
    if importlib.util.find_spec("prefect_dask") is None:
        raise UsageError(
            "runtime.dask needs the package prefect-dask; run `pip install 'selftrain[dask]'`, or set runtime.dask to null"
        )
    if not PREFECT_API_URL.value():
        raise UsageError(
            "runtime.dask needs a Prefect server that the Dask workers reach, and PREFECT_API_URL is not set; start one with "
            "`make server` and set PREFECT_API_URL to its address"
        )


def result_storage(store: Store) -> Path | RemoteFileSystem:
    """Where Prefect keeps its results: in the store, so that all workers share them.

    Prefect wants its block saved on its server, which no credentials may be: where they do not come from the environment,
    results stay on this machine, and another one's task shows as Completed instead of Cached.
    """
    if not store.is_local and not store.has_options:
        settings = {"use_listings_cache": False} | (PATIENT if store.files.is_s3 else {})
        block = RemoteFileSystem(basepath=f"{store.url.rstrip('/')}/.prefect", settings=settings)
        block.save(f"selftrain-store-{fingerprint(store.url)}", overwrite=True, _sync=True)
        return block
    folder = Path(store.root if store.is_local else cache_folder()) / ".prefect"
    with store.writing():
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _key(_: Any, arguments: dict[str, Any]) -> str:
    return str(arguments["step"].ref).replace("/", "-")


def _retryable(_: Any, __: Any, state: Any) -> bool:
    """Only failures of the machine are worth another try; a config error or a bug is not."""
    try:
        state.result()
    except SelftrainError as error:
        return error.retryable
    except SandboxError as error:
        return getattr(error, "exit_code", 1) != 2
    except BaseException:
        return False
    return False


@task(
    cache_policy=CacheKeyFnPolicy(cache_key_fn=_key),
    persist_result=True,
    result_serializer="json",
    retry_condition_fn=_retryable,
)
def make_artifact(run: Run, step: Step) -> dict[str, str]:
    """Make one artifact and show its figures; returns its reference."""
    logger = get_run_logger()
    logger.info("%s: building %s", step.label, step.ref)
    try:
        with ChildLog(logger) as log:
            built = run.build(step, Progress(step, logger), log)
    except UsageError as error:
        logger.error("%s", error)
        raise
    manifest = run.store.manifest(step.ref) or {}
    logger.info("%s: %s in %.1f s", step.label, "built" if built else "found", manifest.get("seconds", 0.0))
    show_table(step, manifest)
    if built:
        track(run, step, manifest)
    if step.stage.name == "report":
        show_report(run, step)
    return {"stage": step.ref.stage, "key": step.ref.key}


def show_table(step: Step, manifest: dict[str, Any]) -> None:
    """A table artifact with the stage's figures; its key gives it a history over runs."""
    rows = [
        {"figure": name, "value": f"{value:.4g}" if isinstance(value, float) else value}
        for name, value in figures(manifest.get("metrics") or {})
    ]
    rows += [
        {"figure": "seconds in all", "value": round(manifest.get("seconds", 0.0), 1)},
        {"figure": "key", "value": step.ref.key},
    ]
    try:
        create_table_artifact(rows, key=artifact_key(step.name), description=step.label)
    except NOT_SHOWN as error:
        logging.getLogger("selftrain").warning("no table of %s: %s", step.label, error)


def figures(metrics: dict[str, Any]) -> Iterator[tuple[str, int | float | str]]:
    """The single values of a manifest's metrics, those of a dict as `name.key`; curves are left out."""
    for name, value in metrics.items():
        if isinstance(value, dict):
            yield from figures({f"{name}.{key}": item for key, item in value.items()})
        elif isinstance(value, int | float | str):
            yield name, value


def artifact_key(name: str) -> str:
    """`name` in the letters that Prefect takes for an artifact's key."""
    return re.sub(r"[^a-z0-9-]+", "-", name.lower())


def task_name(label: str) -> str:
    """`label` as a task run's name, which Prefect would take for a template where it has braces."""
    return label.replace("{", "").replace("}", "")


def show_markdown(name: str, text: str, description: str) -> None:
    """A log line with the first line of `text`, and all of it as a markdown artifact; its key gives it a history over runs."""
    get_run_logger().info("%s", text.partition("\n")[0].strip("*"))
    key = artifact_key(name)
    try:
        create_markdown_artifact(text, key=key, description=description)
    except NOT_SHOWN as error:
        logging.getLogger("selftrain").warning("no artifact %s: %s", key, error)


def show_report(run: Run, step: Step) -> None:
    """The report's table and plots, with where the whole of it is."""
    from selftrain.report import plots, summary_table

    folder = run.path(step.ref)
    table = summary_table(json.loads((folder / "report.json").read_text()))
    images = "\n\n".join(f"**{label}**\n\n![{label}]({image})" for label, image in plots(folder))
    where = f"report.html of {run.config.name}: {run.store.url}/{step.ref}, and in the run's folder"
    show_markdown(
        f"report-{run.config.name}",
        f"**{where}**\n\n```\n{table}```\n\n{images}\n",
        f"report of {run.config.name}",
    )


class ChildLog:
    """Hands lines of child processes to a logger, at their own level; where they come too fast, only their number."""

    LONGEST = 2000
    """Characters of a line that are kept."""
    BURST, PER_SECOND = 200, 10
    """Lines at once, and over time."""

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
"""A progress bar's line; the stage's own progress says more."""
LEVEL = re.compile(r"\b(WARNING|ERROR|CRITICAL)\b|^\w*(Warning|Error)\b:|: \w+(Warning): ")


def level_of(line: str) -> int:
    """The level that a line of a log or an interpreter's own message tells, INFO where it tells none, DEBUG for bars."""
    if BAR.search(line):
        return logging.DEBUG
    found = LEVEL.search(line)
    name = next(filter(None, found.groups())) if found else "INFO"
    return int(logging.getLevelName(name.upper()))


class Progress:
    """Progress on the terminal and, every few seconds, as a Prefect progress artifact and a log line."""

    def __init__(self, step: Step | Part, logger: Any) -> None:
        self.step = step
        self.logger = logger
        self.terminal = watch(step.label)
        self.pace = Pace()
        self.last = time.monotonic()
        self.finished = False
        self.artifact: Any = None

    def __call__(
        self, done: float, total: float, unit: str = "", figures: dict[str, Any] | None = None
    ) -> None:
        self.terminal(done, total, unit, figures)
        rate = self.pace(done)
        now = time.monotonic()
        finished = done >= total and not self.finished  # also of a stage that takes less than one update
        if not total or (now - self.last < SECONDS_BETWEEN_UPDATES and not finished):
            return
        self.last, self.finished = now, done >= total
        text = describe(self.step.label, done, total, unit, rate, figures or {})
        try:
            if self.artifact is None:
                key = artifact_key(f"progress-{self.step.name}")
                self.artifact = create_progress_artifact(100 * done / total, key=key, description=text)
            else:
                update_progress_artifact(self.artifact, 100 * done / total, description=text)
        except NOT_SHOWN as error:
            logging.getLogger("selftrain").debug("no progress artifact: %s", error)
        self.logger.info("%s", text)
