"""Removes the files that a program leaves behind."""

import contextlib
import os
import shutil
import subprocess
import time
from functools import cache
from pathlib import Path

from sandbox.processes import contents_again

SHARED = ("/tmp", "/dev/shm", "/dev/mqueue")  # noqa: S108
"""Directories in a container where every program may write, besides its own directory."""
_COARSE_NS = 20_000_000
"""The kernel may give changes within this time the same time stamp."""
_SYSTEM_V = ("/proc/sysvipc/shm", "/proc/sysvipc/sem", "/proc/sysvipc/msg")


def wipe(path: Path) -> None:
    """Remove a directory or file, whatever its permissions and depth. Raises `OSError`, `CalledProcessError`."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except (OSError, RecursionError):  # directories without permissions, or nested too deep
        subprocess.run(["chmod", "-R", "u+rwX", "--", str(path)], check=False, capture_output=True)
        subprocess.run(["rm", "-rf", "--", str(path)], check=True, capture_output=True)


def wipe_program(directory: str, file: str) -> None:
    """Remove a program's directory. Fast in the usual case that its source `file` is the only file there or nothing is. Raises
    `OSError`, `CalledProcessError`."""
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(file)
        os.rmdir(directory)
    except OSError:
        wipe(Path(directory))


@cache
def _shared() -> list[str]:
    return [place for place in SHARED if os.path.isdir(place)]


_scanned: dict[str, int] = {}  # by directory, the time of its last change when `clear_owned` looked into it


def clear_owned(uid: int) -> None:
    """Remove the files of user `uid` from the directories of the machine where every user may write. Folders of others are not
    searched."""
    for place in (*_shared(), "/var/tmp"):  # noqa: S108
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            changed = os.stat(place).st_mtime_ns
            if changed == _scanned.get(place):
                continue
            for entry in os.scandir(place):
                with contextlib.suppress(FileNotFoundError):  # others remove their files at the same time
                    if entry.stat(follow_symlinks=False).st_uid == uid:
                        wipe(Path(entry.path))
            if time.time_ns() - changed > _COARSE_NS:
                _scanned[place] = changed


def clear_container() -> bool:
    """Empty the directories that all programs of a container may write to. Returns whether nothing is left there, and no shared
    memory, semaphore or message queue of System V."""
    try:
        for place in _shared():
            for name in os.listdir(place):
                wipe(Path(place, name))
    except (OSError, subprocess.SubprocessError):
        return False
    return not any(_rows(table) for table in _SYSTEM_V)


def _rows(table: str) -> int:
    """The number of rows of a table in /proc, without its header; 0 if the table cannot be read."""
    try:
        return contents_again(table).count(b"\n") - 1
    except OSError:
        return 0
