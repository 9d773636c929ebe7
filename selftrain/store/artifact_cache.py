"""A local cache of a remote store's artifacts, with a size limit and eviction of the least recently used copies.

FOLDER/STAGE/KEY/ATTEMPT/...        the files of one copy
FOLDER/STAGE/KEY/ATTEMPT.lock       processes that use the copy hold a shared flock on this file, which the kernel releases
                                    when they end; its modification time is the time of the last use
FOLDER/STAGE/KEY/ATTEMPT.fetch      the process that downloads the copy holds an exclusive flock on this file
"""

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


def cache_folder() -> Path:
    """This project's folder in the user's cache directory (XDG_CACHE_HOME). All of its content can be recreated."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "selftrain"


class ArtifactCache:
    """The cache in `folder`. It holds at most `limit` bytes, or more if the copies in use are larger."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self.used: dict[Path, IO[bytes]] = {}
        """Folder of a copy that this object uses -> its open lock file."""

    def use(self, stage: str, key: str, attempt: str) -> Path:
        """The folder of one copy, which may not exist yet. No process evicts the copy as long as this object exists."""
        copy = self.folder / stage / key / attempt
        if copy not in self.used:
            self.used[copy] = _locked_file(copy.with_name(f"{attempt}.lock"))
        copy.with_name(f"{attempt}.lock").touch()
        return copy

    @contextmanager
    def filling(self, copy: Path) -> Iterator[None]:
        """Hold the copy's download lock for the block: one process downloads the copy while others wait."""
        with copy.with_name(f"{copy.name}.fetch").open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def make_room(self, size: int) -> None:
        """Evict the least recently used copies until `size` more bytes fit within the limit."""
        found = sorted((path.stat().st_mtime, path) for path in self.folder.glob("*/*/*.lock"))
        sizes = {path: _size(path.with_suffix("")) for _, path in found}
        total = size + sum(sizes.values())
        for _, path in found:
            if total <= self.limit:
                return
            if self._drop(path):
                total -= sizes[path]

    def older(self, seconds: float, dry_run: bool) -> Iterator[tuple[Path, int]]:
        """Evict the copies last used more than `seconds` ago; yields their folders and bytes. `dry_run`: evicts nothing."""
        for lock in sorted(self.folder.glob("*/*/*.lock")):
            copy = lock.with_suffix("")
            size = _size(copy)
            if time.time() - lock.stat().st_mtime > seconds and (dry_run or self._drop(lock)):
                yield copy, size

    def _drop(self, lock: Path) -> bool:
        """Delete the copy whose lock file is `lock`, unless a process uses the copy. Returns whether it was deleted."""
        with suppress(OSError), lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            lock.with_suffix(".fetch").unlink(missing_ok=True)
            lock.unlink()
            return True
        return False


def _locked_file(path: Path) -> IO[bytes]:
    """Open the file and take a shared lock on it; while the lock is held, `_drop` deletes nothing."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
        fcntl.flock(file, fcntl.LOCK_SH)
        with suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                return file
        file.close()  # another process deleted the file after we opened and before we locked it


def _size(folder: Path) -> int:
    """Bytes of all files in `folder`."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
