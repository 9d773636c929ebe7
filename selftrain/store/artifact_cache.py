"""Local copies of a remote store's artifacts, up to a limit: what was not used for longest goes first.

FOLDER/STAGE/KEY/ATTEMPT/...        the files
FOLDER/STAGE/KEY/ATTEMPT.lock       locked while a process uses them (flock: gone with it); its time is the last use
"""

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


class Copies:
    """Copies in `folder`, at most `limit` bytes, but for what is in use."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self.used: dict[Path, IO[bytes]] = {}

    def use(self, stage: str, key: str, attempt: str) -> Path:
        """The folder of one copy, there or not. It stays until this process, or this object, ends."""
        copy = self.folder / stage / key / attempt
        if copy not in self.used:
            self.used[copy] = _locked_file(copy.with_name(f"{attempt}.lock"))
        copy.with_name(f"{attempt}.lock").touch()
        return copy

    @contextmanager
    def filling(self, copy: Path) -> Iterator[None]:
        """One process at a time fetches a copy; the others find it there."""
        with copy.with_name(f"{copy.name}.fetch").open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def make_room(self, size: int) -> None:
        """Delete what was not used for longest until `size` more bytes are within the limit."""
        found = sorted((path.stat().st_mtime, path) for path in self.folder.glob("*/*/*.lock"))
        sizes = {path: _size(path.with_suffix("")) for _, path in found}
        total = size + sum(sizes.values())
        for _, path in found:
            if total <= self.limit:
                return
            if self._drop(path):
                total -= sizes[path]

    def older(self, seconds: float, dry_run: bool) -> Iterator[tuple[Path, int]]:
        """Delete the copies that were not used for `seconds` (unless `dry_run`), and yield them with their bytes."""
        for lock in sorted(self.folder.glob("*/*/*.lock")):
            copy = lock.with_suffix("")
            size = _size(copy)
            if time.time() - lock.stat().st_mtime > seconds and (dry_run or self._drop(lock)):
                yield copy, size

    def _drop(self, lock: Path) -> bool:
        """Delete the copy of `lock` unless a process uses it."""
        with suppress(OSError), lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            lock.with_suffix(".fetch").unlink(missing_ok=True)
            lock.unlink()
            return True
        return False


def _locked_file(path: Path) -> IO[bytes]:
    """The file, open and locked against deletion."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
        fcntl.flock(file, fcntl.LOCK_SH)
        with suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                return file
        file.close()  # deleted between opening and locking


def _size(folder: Path) -> int:
    """Bytes of all files in `folder`."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
