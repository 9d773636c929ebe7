"""Opens a run from a flow's parameters, carries it out, and writes its run.json and report."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from selftrain.config import RunConfig
from selftrain.configfile import load_config
from selftrain.errors import SelftrainError, UsageError
from selftrain.report.build import finish_report
from selftrain.stage import ArtifactRef
from selftrain.store.runfile import OWN, followed
from selftrain.store.runfolder import in_use, link_newest, own_folder
from selftrain.store.store import Store, replace_file
from tasks.credentials import storage_options
from tasks.run import Run
from tasks.track import need_tracker

LOGGER = logging.getLogger("selftrain")

FINISHED = ". Finished artifacts are in the store"

AnyRun = TypeVar("AnyRun", bound=Run)


def open_run(
    kind: type[AnyRun],
    config: str,
    overrides: dict[str, Any] | None,
    rounds: int | None,
    out: str | None,
    what: str = "",
) -> tuple[AnyRun, Path]:
    """Create a run of class `kind`; returns it and its folder, which is `out` or the run's own in runs/.

    what  added to the config's name in the name of the folder

    Raises UsageError for a wrong config or `out`, StoreError for the store.
    """
    settings = dict(overrides or {})
    if rounds is not None:
        settings["rounds"] = rounds
    loaded = load_config(config, settings)
    if out and followed(Path(out)) != Path(out):
        raise UsageError(
            f"{out} is a link to the newest run, {followed(Path(out))}, which would be overwritten; without --out each run has a "
            "folder of its own"
        )
    run = kind(loaded, open_store(loaded))
    folder = Path(out) if out else own_folder(Path("runs"), f"{loaded.name}{what}", run.id)
    if own := OWN.fullmatch(folder.name):
        run.id = own["id"]
    return run, folder


def open_store(config: RunConfig) -> Store:
    """Open the store of a config, with the credentials of `store_block`. Raises UsageError and StoreError."""
    options = storage_options(config.store_block)
    return Store(config.store, options=options, cache_gib=config.runtime.cache_gib)


def carry_out(run: AnyRun, folder: Path, method: Callable[[AnyRun], ArtifactRef]) -> dict[str, Any]:
    """Carry out `run` by calling `method`, which returns the report artifact; returns the content of report.json, and `folder`.

    run.json in the run's folder records the stages so far and why the run ended. Raises the errors of `method`, and UsageError if
    the folder is not writable or the tracker is not installed.
    """
    need_tracker(run.config.runtime.tracker)
    with writing(f"the run's folder {folder}", FINISHED):
        run.write(folder, finished=False)
    with in_use(folder):
        if said := link_newest(folder):
            LOGGER.warning("%s", said)
        try:
            report = method(run)
            run.complete()
        except BaseException as error:
            with contextlib.suppress(OSError):
                run.write(folder, finished=False, failed=_reason(error))
            raise
        return _finish(run, report, folder)


def _reason(error: BaseException) -> str:
    """Why a run ended, for run.json. Errors of other libraries appear by type only: their text may contain credentials."""
    if isinstance(error, SelftrainError):
        return str(error)
    if isinstance(error, Exception):
        return f"{type(error).__name__}; the run's log has the details"
    return "interrupted"


def _finish(run: Run, report: ArtifactRef, folder: Path) -> dict[str, Any]:
    """Copy the report into the run's folder and add the run's own time and cache hits; returns the content of report.json and,
    under `folder`, where it is."""
    with writing(f"the run's folder {folder}", FINISHED):
        for path in run.path(report).glob("report.*"):
            replace_file(folder / path.name, path.read_bytes())
        seconds = (run.store.manifest(report) or {}).get("seconds", 0.0)
        content = finish_report(folder, run.seconds, seconds, run.cached, run.commit)
        run.write(folder, finished=True)
    return content | {"folder": str(folder)}


@contextmanager
def writing(what: str, more: str = "") -> Iterator[None]:
    """Turn a failure to write the folder `what` into a UsageError. `more`: the end of its message."""
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"{what}: {error}; expected a folder that can be written: choose one with --out{more}"
        ) from error
