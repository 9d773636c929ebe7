"""Opens a run from a flow's parameters, and closes it with its report."""

import time
from pathlib import Path
from typing import Any, TypeVar

from selftrain.configfile import load_config
from selftrain.report import finish_report
from selftrain.stage import ArtifactRef
from selftrain.store import Store
from tasks.run import Run

AnyRun = TypeVar("AnyRun", bound=Run)


def open_run(
    kind: type[AnyRun], config: str, overrides: dict[str, Any] | None, rounds: int | None, out: str | None
) -> tuple[AnyRun, Path]:
    """A run of `kind` and its folder. Raises UsageError where the config is wrong."""
    settings = dict(overrides or {})
    if rounds is not None:
        settings["rounds"] = rounds
    loaded = load_config(config, settings)
    run = kind(loaded, Store(loaded.store))
    return run, Path(out or Path("runs") / loaded.name)


def finish(run: Run, report: ArtifactRef, folder: Path) -> dict[str, Any]:
    """Copy the report into the run's folder, with what belongs to this run only; the content of report.json."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in run.store.path(report).glob("report.*"):
        (folder / path.name).write_bytes(path.read_bytes())
    run.write(folder, finished=True)
    return finish_report(folder, time.time() - run.started, run.cached)
