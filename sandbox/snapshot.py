"""Restores a program's directory between its cases to the state after compilation."""

import os
import stat
from pathlib import Path

from sandbox.clear import wipe


class Snapshot:
    """The entries of a directory and its folders as they are now; symbolic links are not followed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._was = dict(_entries(str(directory)))

    def restore(self) -> bool:
        """Remove all entries that are new. Returns whether the others are unchanged; if not, the caller has to build the directory
        again. Raises `OSError`, `CalledProcessError`."""
        try:
            for folder in [path for path, (kind, *_) in self._was.items() if stat.S_ISDIR(kind)]:
                for entry in os.scandir(folder):
                    if entry.path not in self._was:
                        wipe(Path(entry.path))
            return dict(_entries(str(self._directory))) == self._was
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return False


def _entries(path: str) -> list[tuple[str, tuple[int, int, int]]]:
    """(path, mode, inode, time of the last change) of an entry and all entries below it. A program cannot set the time of a file's
    last change. That of a folder is left out: it also tells of entries that are gone again."""
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode):
        return [(path, (found.st_mode, found.st_ino, found.st_ctime_ns))]
    below = [more for entry in os.scandir(path) for more in _entries(entry.path)]
    return [(path, (found.st_mode, found.st_ino, 0)), *below]
