"""Makes the folders of runs: each run has its own, NAME.ID, and the link NAME beside it leads to the newest.

A folder NAME that is no link, as earlier versions and `--out` make, is renamed to NAME.ID when the next run begins. Nothing needs
the folder of an old run: it may be deleted, its artifacts are in the store.
"""

import fcntl
import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from selftrain.store.runfile import NAME, OWN, followed, own_folders

LOCK = ".lock"
"""File beside the runs' folders, locked while a link is set."""


def new_id(flow_run: str | None = None) -> str:
    """An id for a run that begins now: the time (UTC) and eight hex digits, the last ones of the id of its Prefect flow run."""
    return _id(time.time(), flow_run or uuid.uuid4().hex)


def own_folder(parent: Path, name: str, id: str) -> Path:
    """The folder of the run `id` of that name; it is not made here.

    A flow run that starts again, after a crash, has another time in its id, and the folder of its first start.
    """
    known = (folder for folder in own_folders(parent / name) if folder.name[-8:] == id[-8:])
    return next(known, parent / f"{name}.{id}")


def link_newest(folder: Path) -> str | None:
    """Let the link of its name lead to `folder`, where a run has begun; returns what the user has to know about it.

    Does nothing for a folder that was named by hand, or if the link leads to a newer run.
    """
    own = OWN.fullmatch(folder.name)
    if own is None:
        return None
    link, said = folder.with_name(own["name"]), None
    try:
        with _alone(folder.parent):
            newest = followed(link)
            if newest != link and newest.is_dir() and newest.name > folder.name:
                return None
            if newest == link and os.path.lexists(link):
                kept = _kept(link)
                if kept is None:
                    return (
                        f"{link} is in use by another run, or holds other files than a run's: it stays as it is, and this run is "
                        f"found as {folder} only"
                    )
                said = (
                    f"{link}, the folder of an earlier run, is now {kept}; {link} is a link to the newest run"
                )
            part = folder.with_name(f".{folder.name}.link")
            part.unlink(missing_ok=True)
            part.symlink_to(folder.name)
            part.replace(link)
    except OSError as error:
        return f"cannot make the link {link} to the newest run ({error}); commands take {folder} for it while it is the newest"
    return said


@contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """A run works in `folder` for the block: no other renames it, where its file system has locks."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def _free(folder: Path) -> bool:
    """Whether no run works in `folder`."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # no locks there
        return True
    finally:
        os.close(descriptor)
    return True


def _kept(folder: Path) -> Path | None:
    """Rename a run's folder that has no id; returns its new path, None if a run works there, or it holds no run, or a store too."""
    path = folder / NAME
    if folder.is_dir() and not _free(folder):
        return None
    try:
        content = path.read_bytes()
    except OSError:
        return None
    began, store = path.stat().st_mtime, ""
    with suppress(ValueError, TypeError, KeyError):  # damaged, or of a version that wrote no time
        record = json.loads(content)
        store = str(record["store"])
        began = float(record["started"])
    if store and "://" not in store and Path(store).resolve().is_relative_to(folder.resolve()):
        return None
    return folder.rename(folder.with_name(f"{folder.name}.{_id(began, hashlib.sha256(content).hexdigest())}"))


def _id(began: float, digits: str) -> str:
    return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(began))}-{digits[-8:]}"


@contextmanager
def _alone(parent: Path) -> Iterator[None]:
    """Hold the lock of the runs in `parent`, where its file system has locks: two runs that begin would rename each other's link."""
    with (parent / LOCK).open("w") as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
