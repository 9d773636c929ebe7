"""A local cache of a remote store's artifacts, up to a size limit; the least recently used copies are evicted first.

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


def cache_folder() -> Path:
    """The folder for everything that can be made again (XDG's cache)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "selftrain"


class ArtifactCache:
    """The cache in `folder`: at most `limit` bytes, except that a copy in use is never evicted."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self.used: dict[Path, IO[bytes]] = {}

    def use(self, stage: str, key: str, attempt: str) -> Path:
        """The folder of one copy, which may not exist yet. It is not evicted before this process, or this object, ends."""
        copy = self.folder / stage / key / attempt
        if copy not in self.used:
            self.used[copy] = _locked_file(copy.with_name(f"{attempt}.lock"))
        copy.with_name(f"{attempt}.lock").touch()
        return copy

    @contextmanager
    def filling(self, copy: Path) -> Iterator[None]:
        """Hold the copy's lock while it is fetched, so that one process fetches it and the others wait."""
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
        """Evict the copies that no process has used for `seconds`; yields them with their bytes. `dry_run`: only yields them."""
        for lock in sorted(self.folder.glob("*/*/*.lock")):
            copy = lock.with_suffix("")
            size = _size(copy)
            if time.time() - lock.stat().st_mtime > seconds and (dry_run or self._drop(lock)):
                yield copy, size

    def _drop(self, lock: Path) -> bool:
        """Delete the copy of `lock` unless a process uses it; whether it was deleted."""
        with suppress(OSError), lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            lock.with_suffix(".fetch").unlink(missing_ok=True)
            lock.unlink()
            return True
        return False


def _locked_file(path: Path) -> IO[bytes]:
    """The file, open and with a shared lock, which `_drop` respects."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
        fcntl.flock(file, fcntl.LOCK_SH)
        with suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                return file
        file.close()  # another process deleted it between our open and our lock


def _size(folder: Path) -> int:
    """Bytes of all files in `folder`."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
