"""Reads `run.json`, which `tasks.run` writes into a run's folder: its config, its store, the artifact of each stage."""

import glob
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from selftrain.errors import UsageError

NAME = "run.json"
_FIELDS: Mapping[str, Any] = {
    "name": str,
    "store": str,
    "finished": bool,
    "seconds": int | float,
    "config": dict,
    "stages": dict,
    "reranker": str | None,
}
"""Keys that every run.json has, and the types of their values."""


OWN = re.compile(r"(?P<name>.+)\.(?P<id>\d{8}T\d{6}Z-[0-9a-f]{8})")
"""Name of a run's own folder, NAME.ID (`selftrain.store.runfolder`); the link NAME beside it leads to the newest run."""


def find_run(run: str | Path) -> Path:
    """The folder of a run, given the folder or its name in runs/; for a link to the newest run, that run's own folder.

    Where there is no link NAME, or it leads nowhere, NAME is the newest run whose folder is there. Raises UsageError where no
    folder contains a run.json.
    """
    for folder in (Path(run), Path("runs") / run):
        try:
            for found in (followed(folder), *reversed(own_folders(folder))):
                if (found / NAME).is_file():
                    return found
        except OSError as error:  # without permission, or with a name that is too long
            raise UsageError(f"{str(run)[:200]}: cannot be read: {error.strerror}") from error
    raise UsageError(f"{run}: no {NAME} there; `selftrain runs` lists the runs")


def followed(folder: Path) -> Path:
    """The run's own folder to which `folder` leads, if `folder` is the link to the newest run of its name; else `folder`."""
    if not folder.is_symlink():
        return folder
    target = os.readlink(folder)
    own = OWN.fullmatch(target)
    return folder.with_name(target) if own is not None and own["name"] == folder.name else folder


def link_of(folder: Path) -> Path:
    """The link that leads to the run's own folder `folder` while it is the newest of its name; `folder` if it is none."""
    own = OWN.fullmatch(folder.name)
    return folder if own is None else folder.with_name(own["name"])


def own_folders(link: Path) -> list[Path]:
    """The own folders of the runs of one name, to the newest of which `link` leads or would lead; the newest is the last."""
    found = link.parent.glob(f"{glob.escape(link.name)}.*")
    return sorted(path for path in found if OWN.fullmatch(path.name) and link_of(path) == link)


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
        late = ""
        if not record.get("finished", True):
            late = f". The run is {state(record)}: wait for its end, or run it again; `selftrain show` says how far it is"
        raise UsageError(
            f"this run of {record['name']} has no stage {stage}; expected one of {', '.join(record['stages'])}{late}"
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
    if not isinstance(record, dict) or not record.keys() >= _FIELDS.keys():
        raise UsageError(f"{path}: not what `selftrain run` writes; run it again")
    wrong = [name for name, kind in _FIELDS.items() if not isinstance(record[name], kind)]
    if not wrong:
        wrong = [f"stages.{name}" for name, ref in record["stages"].items() if not is_ref(ref)]
    if wrong:
        raise UsageError(f"{path}: {wrong[0]} is not what `selftrain run` writes; run it again")
    return record


def is_ref(value: object) -> bool:
    """Whether `value` names an artifact as records do: {"stage": STAGE, "key": KEY}."""
    return isinstance(value, dict) and all(isinstance(value.get(name), str) for name in ("stage", "key"))
