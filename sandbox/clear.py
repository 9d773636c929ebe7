"""Removes what a program leaves behind, and reads a container's counter of memory kills."""

import contextlib
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

from sandbox.processes import contents, contents_again

SHARED = ("/tmp", "/dev/shm", "/dev/mqueue")  # noqa: S108
"""Where any program in a container may write, besides its own directory."""
_SYSTEM_V = ("/proc/sysvipc/shm", "/proc/sysvipc/sem", "/proc/sysvipc/msg")
_OOM_COUNTERS = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")  # cgroup v2, v1


def wipe(path: Path) -> None:
    """Remove a directory or file, with any permissions and depth. Raises `OSError`, `CalledProcessError`."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except (OSError, RecursionError):  # directories without permissions, or nested too deep
        subprocess.run(["chmod", "-R", "u+rwX", "--", str(path)], check=False, capture_output=True)
        subprocess.run(["rm", "-rf", "--", str(path)], check=True, capture_output=True)


def wipe_program(directory: str, file: str) -> None:
    """Remove a program's directory, which usually contains only the program `file`. Raises `OSError`, `CalledProcessError`."""
    try:
        os.unlink(file)
        os.rmdir(directory)
    except OSError:
        wipe(Path(directory))


@cache
def _shared() -> list[str]:
    return [place for place in SHARED if os.path.isdir(place)]


@cache
def _oom_counter() -> str | None:
    """The cgroup file with the number of processes that the kernel has killed."""
    for path in _OOM_COUNTERS:
        with contextlib.suppress(OSError):
            if b"oom_kill " in contents(path):
                return path
    return None


def clear_container() -> bool:
    """Empty the directories that programs of a container may write to; returns whether nothing of them remains."""
    try:
        for place in _shared():
            for name in os.listdir(place):
                wipe(Path(place, name))
    except (OSError, subprocess.SubprocessError):
        return False
    return not any(_rows(table) for table in _SYSTEM_V)


def _rows(table: str) -> int:
    """The number of rows of a table in /proc, without its header."""
    try:
        return contents_again(table).count(b"\n") - 1
    except OSError:
        return 0


def memory_kills() -> int:
    """How many processes of this container the kernel has killed so far because memory ran out (cgroup v1 and v2)."""
    counter = _oom_counter()
    if counter is not None:
        with contextlib.suppress(OSError):
            counts = dict(line.split() for line in contents_again(counter).splitlines())
            return int(counts[b"oom_kill"])
    return 0
