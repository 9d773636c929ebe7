"""A training stage's checkpoints in a remote store, while it trains, so that another machine can resume from them.

    KEY/progress/checkpoints.json                  the complete checkpoints: name -> file -> sha256
    KEY/progress/SHA256/checkpoints/NAME/FILE      their files

The store mirrors the stage's own folder: the newest checkpoint, and the best where there is evaluation. All of them are
deleted when the stage's artifact is committed.
"""

import json
import logging
import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from selftrain.errors import StoreError
from selftrain.store.files import Files, leads_out, sha256_file
from selftrain.store.lease import in_background

LOGGER = logging.getLogger("selftrain")

FOLDER = "checkpoints"
"""Folder of the checkpoints in a stage's progress folder, locally and in the store."""
WHOLE, STATE = "whole", "state.json"
"""Files that mark a complete checkpoint: that of `training.common`, written last (the number of processes and the ZeRO stage
that wrote it, as JSON), and that of `ppo.checkpoint`."""
POLL = 5.0
"""Seconds between two searches for new checkpoints."""
PAUSE = 60.0
"""Back-off: seconds to wait after the store has failed."""

Checkpoints = Mapping[str, Mapping[str, str]]
"""Name -> file -> sha256."""


@contextmanager
def shared(files: Files, there: str, here: Path) -> Iterator[None]:
    """While the block trains, mirror the checkpoints of the local progress folder `here` to that of the store, `there`.

    First it fetches the checkpoints in the store, unless `here` has a complete one. A failing store does not stop training;
    its checkpoints are then not mirrored.
    """
    mirror = Mirror(files, there, here / FOLDER)
    mirror.fetch()
    # The thread ends after its current file, so that it writes nothing once the artifact is committed.
    with in_background(mirror.keep_up):
        yield


class Mirror:
    """Mirrors the checkpoints in `here` to the store's folder `there`."""

    def __init__(self, files: Files, there: str, here: Path) -> None:
        self.files, self.there, self.here = files, there, here
        self.index = f"{there}/{FOLDER}.json"
        self.kept: Checkpoints = {}
        """The checkpoints that the store holds."""

    def fetch(self) -> None:
        """Fetch the store's checkpoints, unless `here` has one: all or none of them, since the newest may refer to the best."""
        if whole(self.here):
            return
        part = self.here / ".fetched"
        try:
            found = json.loads(self.files.read(self.index))
            shutil.rmtree(part, ignore_errors=True)
            for name, file, sha256 in _flat(found):
                if leads_out(f"{name}/{file}"):
                    raise StoreError(f"{name}/{file} leads out of its folder")
                self.files.download(self._path(name, file, sha256), part / name / file)
                if sha256_file(part / name / file) != sha256:
                    raise StoreError(f"{name}/{file} is not what was stored")
            for path in sorted(
                map(part.joinpath, found), key=step_of
            ):  # the newest last, from which training resumes
                shutil.rmtree(self.here / path.name, ignore_errors=True)
                path.rename(self.here / path.name)
        except FileNotFoundError:
            return  # no machine has stored a checkpoint of this stage
        except (StoreError, OSError, ValueError) as error:
            LOGGER.warning(
                "training starts from the beginning: its checkpoints in %s cannot be used: %s",
                self.there,
                error,
            )
            return
        self.kept = found
        LOGGER.info("training resumes from the checkpoints in %s: %s", self.there, ", ".join(sorted(found)))

    def keep_up(self, stop: threading.Event) -> None:
        """Until `stop`, store each new checkpoint and delete from the store those that `here` no longer has."""
        pause = POLL
        while not stop.wait(pause):
            try:
                self.update(stop)
                pause = POLL
            except (StoreError, OSError) as error:
                LOGGER.warning("checkpoints could not be stored, retrying: %s", error)
                pause = PAUSE

    def update(self, stop: threading.Event) -> None:
        """Mirror `here` to the store once; ends early where `stop` is set."""
        if whole(self.here).keys() == self.kept.keys():
            return
        with _still(self.here) as names:
            kept = {name: self.kept.get(name) or _sums(path) for name, path in names.items()}
            for name, file, sha256 in _flat({name: kept[name] for name in kept.keys() - self.kept.keys()}):
                if stop.is_set():
                    return
                self.files.upload(names[name] / file, self._path(name, file, sha256))
        if stop.is_set() or not kept:
            return
        self.files.write(self.index, json.dumps(kept).encode())
        before, self.kept = self.kept, kept
        for one in sorted(set(_flat(before)) - set(_flat(kept))):
            self.files.delete(self._path(*one))

    def _path(self, name: str, file: str, sha256: str) -> str:
        return f"{self.there}/{sha256}/{FOLDER}/{name}/{file}"


def whole(folder: Path) -> dict[str, Path]:
    """The complete checkpoints in `folder`, by name."""
    found = {mark.parent for name in (WHOLE, STATE) for mark in folder.glob(f"*/{name}")}
    return {path.name: path for path in sorted(found) if not path.name.startswith(".")}


def anew(folder: Path) -> str:
    """What a user can do where training cannot resume from the checkpoints in `folder`."""
    return f"delete {folder} to start again (on a remote store with runtime.share_checkpoints: false, for it has copies of them)"


def step_of(checkpoint: Path) -> int:
    """The training step of a checkpoint, from its name."""
    return int(checkpoint.name.rpartition("-")[2])


@contextmanager
def _still(folder: Path) -> Iterator[dict[str, Path]]:
    """The complete checkpoints in `folder`, by name, as hard links that stay for the block when training deletes the originals."""
    still = folder / ".still"
    shutil.rmtree(still, ignore_errors=True)
    found = whole(folder)
    try:
        for name, path in found.items():
            shutil.copytree(path, still / name, copy_function=os.link)
    except (FileNotFoundError, shutil.Error):
        found = {}  # training deleted one meanwhile, so there is a newer one
    if found.keys() != whole(folder).keys():
        found = {}
    try:
        yield {name: still / name for name in found}
    finally:
        shutil.rmtree(still, ignore_errors=True)


def _sums(checkpoint: Path) -> dict[str, str]:
    """sha256 of each file of a checkpoint, by its path in it."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    return {path.relative_to(checkpoint).as_posix(): sha256_file(path) for path in files}


def _flat(checkpoints: Checkpoints) -> Iterator[tuple[str, str, str]]:
    """Checkpoint, file and sha256 of all files."""
    for name, files in checkpoints.items():
        for file, sha256 in files.items():
            yield name, file, sha256
