"""Reads `run.json` in a run's folder: its config, its store and the artifact of each stage. `tasks.run` writes it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selftrain.errors import UsageError

NAME = "run.json"
_FIELDS = {"name", "store", "finished", "seconds", "config", "stages", "reranker"}


def find_run(run: str | Path) -> Path:
    """The folder of `run`, which is a folder or the name of one in runs/. Raises UsageError where neither holds a run."""
    for folder in (Path(run), Path("runs") / run):
        if (folder / NAME).is_file():
            return folder
    raise UsageError(f"{run}: no {NAME} there; `selftrain runs` lists the runs")


def state(record: Mapping[str, Any]) -> str:
    """The state of a run: `finished`, `failed`, or `unfinished` (it is still running, or was killed)."""
    return "finished" if record["finished"] else "failed" if record.get("failed") else "unfinished"


def last_stage(record: Mapping[str, Any]) -> str | None:
    """The last stage that a run has started; None where it has started none."""
    return next(reversed(record["stages"]), None)


def read_run(folder: Path) -> dict[str, Any]:
    """The content of a folder's run.json. Raises UsageError where it is missing or damaged."""
    path = folder / NAME
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: {error}; expected what `selftrain run` writes, run it again") from error
    if not isinstance(record, dict) or not record.keys() >= _FIELDS:
        raise UsageError(f"{path}: not what `selftrain run` writes; run it again")
    return record
