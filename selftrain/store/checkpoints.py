"""Mirrors a training stage's checkpoints to a remote store while it trains, so that another machine can resume.

    KEY/progress/checkpoints.json                  the complete checkpoints: name -> file -> sha256
    KEY/progress/SHA256/checkpoints/NAME/FILE      their files

The mirror contains the complete checkpoints of the stage's local folder: the newest ones (`runtime.keep_checkpoints`), and
the best if the stage evaluates while it trains (PPO with `ppo.keep_best`: the best policy). `Store.build` deletes the mirror once it has committed the stage's artifact.
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
# A checkpoint is complete if it contains one of these two files.
WHOLE, STATE = "whole", "state.json"
"""SFT and reward training write WHOLE last (JSON: number of processes, ZeRO stage); `ppo.checkpoint` writes STATE, and
`ppo.export` an empty WHOLE beside the best policy."""
POLL = 5.0
"""Seconds between two searches for new checkpoints."""
PAUSE = 60.0
"""Back-off: seconds between a failure of the store and the next search."""

Checkpoints = Mapping[str, Mapping[str, str]]
"""Name of a checkpoint -> path of a file in it -> sha256 of the file."""


@contextmanager
def shared(files: Files, there: str, here: Path) -> Iterator[None]:
    """Mirror checkpoints from the local progress folder `here` to the store's folder `there` while the block runs.

    Before the block starts, the store's checkpoints are downloaded, unless `here` has a complete checkpoint. A failure of the
    store does not stop training: it is logged, and the upload is retried.
    """
    mirror = Mirror(files, there, here / FOLDER)
    mirror.fetch()
    # The thread finishes its current file and is joined: nothing is uploaded after the artifact is committed.
    with in_background(mirror.keep_up):
        yield


class Mirror:
    """Mirrors the checkpoints in `here` to the store's folder `there`."""

    def __init__(self, files: Files, there: str, here: Path) -> None:
        self.files, self.there, self.here = files, there, here
        self.index = f"{there}/{FOLDER}.json"
        self.kept: Checkpoints = {}
        """The checkpoints in the store."""

    def fetch(self) -> None:
        """Download the checkpoints in the store, unless `here` has one. A failure discards all: the newest may need the best."""
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
            # The newest last, since training resumes from it.
            for path in sorted(map(part.joinpath, found), key=step_of):
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
        """Until `stop` is set, call `update` every `POLL` seconds, or `PAUSE` seconds after a failure."""
        pause = POLL
        while not stop.wait(pause):
            try:
                self.update(stop)
                pause = POLL
            except (StoreError, OSError) as error:
                LOGGER.warning("checkpoints could not be stored, retrying: %s", error)
                pause = PAUSE

    def update(self, stop: threading.Event) -> None:
        """Upload new checkpoints, and delete from the store those that `here` no longer has. Returns early if `stop` is set."""
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
    """Advice for the user where training cannot resume from the checkpoints in `folder`."""
    return f"delete {folder} to start again (on a remote store with runtime.share_checkpoints: false, for it has copies of them)"


def step_of(checkpoint: Path) -> int:
    """The training step of a checkpoint, from its name."""
    return int(checkpoint.name.rpartition("-")[2])


@contextmanager
def _still(folder: Path) -> Iterator[dict[str, Path]]:
    """A snapshot of the complete checkpoints in `folder`: name -> folder of hard links, valid for the block.

    Training may delete the originals meanwhile. Empty where the checkpoints changed before all links were created.
    """
    still = folder / ".still"
    shutil.rmtree(still, ignore_errors=True)
    found = whole(folder)
    try:
        for name, path in found.items():
            shutil.copytree(path, still / name, copy_function=os.link)
    except (FileNotFoundError, shutil.Error):
        found = {}  # training has deleted a checkpoint, so a newer one exists
    if found.keys() != whole(folder).keys():
        found = {}
    try:
        yield {name: still / name for name in found}
    finally:
        shutil.rmtree(still, ignore_errors=True)


def _sums(checkpoint: Path) -> dict[str, str]:
    """Path of each file in a checkpoint -> its sha256."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    return {path.relative_to(checkpoint).as_posix(): sha256_file(path) for path in files}


def _flat(checkpoints: Checkpoints) -> Iterator[tuple[str, str, str]]:
    """(checkpoint, file, sha256) of every file."""
    for name, files in checkpoints.items():
        for file, sha256 in files.items():
            yield name, file, sha256
