"""`run.json` in a run's folder: its config, its store, and where each stage's artifact is. `tasks.run` writes it."""

import json
from pathlib import Path
from typing import Any

from selftrain.errors import UsageError

NAME = "run.json"
_FIELDS = {"name", "store", "finished", "seconds", "config", "stages", "reranker"}


def find_run(run: str | Path) -> Path:
    """The folder that `run` means: itself, or runs/`run`. Raises UsageError where neither holds a run."""
    for folder in (Path(run), Path("runs") / run):
        if (folder / NAME).is_file():
            return folder
    raise UsageError(f"{run}: no {NAME} there; `selftrain runs` lists the runs")


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
