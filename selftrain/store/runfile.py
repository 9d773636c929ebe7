"""Reads `run.json`, which `tasks.run` writes into a run's folder: its config, its store, the artifact of each stage."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from selftrain.errors import UsageError

NAME = "run.json"
_FIELDS = {"name", "store", "finished", "seconds", "config", "stages", "reranker"}
"""Keys that every run.json has."""


def find_run(run: str | Path) -> Path:
    """The folder of a run, given the folder or its name in runs/. Raises UsageError where neither contains a run.json."""
    for folder in (Path(run), Path("runs") / run):
        if (folder / NAME).is_file():
            return folder
    raise UsageError(f"{run}: no {NAME} there; `selftrain runs` lists the runs")


def stage_folder(record: Mapping[str, Any], stage: str) -> Path:
    """The folder with the files of one stage of a run, checked against its manifest. Raises UsageError where the run has no such
    stage, StoreError where the store cannot be read."""
    return _of_stage(record, stage, "path")


def stage_place(record: Mapping[str, Any], stage: str) -> Path:
    """As `stage_folder`, but files of a local store are not checked, which would take minutes for a large model."""
    return _of_stage(record, stage, "place")


def _of_stage(record: Mapping[str, Any], stage: str, how: Literal["path", "place"]) -> Path:
    from selftrain.stage import ArtifactRef
    from selftrain.store.store import Store

    if stage not in record["stages"]:
        raise UsageError(
            f"this run of {record['name']} has no stage {stage}; expected one of {', '.join(record['stages'])}"
        )
    ref, store = record["stages"][stage], Store(record["store"])
    return (store.path if how == "path" else store.place)(ArtifactRef(ref["stage"], ref["key"]))


def state(record: Mapping[str, Any]) -> str:
    """The state of a run: `finished`, `failed`, or `unfinished` (it is still running, or was killed)."""
    return "finished" if record["finished"] else "failed" if record.get("failed") else "unfinished"


def unfinished(record: Mapping[str, Any]) -> list[str]:
    """Names of the stages that a run has begun and not finished: they are at work, have failed, or were stopped."""
    if record["finished"]:
        return []
    if "unfinished" in record:
        return list(record["unfinished"])
    return list(record["stages"])[-1:]  # older versions worked at one stage at a time, and did not name it


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
