"""The processes that a program started: what they use, and their end. Linux only: it reads /proc.

The runner is a *subreaper*: whatever a program leaves behind, a daemon with a session of its own included,
becomes the runner's child when its parent ends. So the runner's children, apart from those it wants to keep,
are the program's.
"""

import contextlib
import ctypes
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from typing import Any

from sandbox.errors import SandboxError

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_LIBC = ctypes.CDLL(None)
_WALL = 0x40000000  # __WALL: threads, too
_PATIENCE_SECONDS = 10.0
_CHILDREN = "/proc/{0}/task/{0}/children"


@dataclass(frozen=True)
class Usage:
    """What processes use, or used: CPU seconds, resident bytes, and how many threads there are."""

    cpu_seconds: float = 0.0
    memory_bytes: int = 0
    threads: int = 0


def contents(path: str) -> bytes:
    """A file of the kernel's: a third of what `open` costs, several times per program. Raises `OSError`."""
    fd = os.open(path, os.O_RDONLY)
    try:
        found = b""
        while more := os.read(fd, 1 << 16):
            found += more
        return found
    finally:
        os.close(fd)


_open: dict[str, int] = {}


def contents_again(path: str) -> bytes:
    """The same of a file that is read for each program, and holds little (a page at most): it stays open. Raises `OSError`."""
    if path not in _open:
        _open[path] = os.open(path, os.O_RDONLY)
    return os.pread(_open[path], 1 << 16, 0)


def forget(pid: int) -> None:
    """Close what is open of process `pid`, before another one can have this number."""
    if (fd := _open.pop(_CHILDREN.format(pid), None)) is not None:
        os.close(fd)


def children(pid: int) -> set[int]:
    """The children of `pid`, zombies included; empty where it is gone."""
    found: set[int] = set()
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                found.update(map(int, contents(f"/proc/{pid}/task/{thread}/children").split()))
    return found


def _children_again(pid: int) -> set[int]:
    """`children` of this process or one that it keeps, where only the first thread has any that are of interest."""
    with contextlib.suppress(OSError):
        listed = contents_again(_CHILDREN.format(pid))
        if len(listed) < _PAGE // 2 and threading.active_count() == 1:  # otherwise there may be more
            return set(map(int, listed.split()))
    return children(pid)


def descendants(keep: frozenset[int]) -> Iterator[int]:
    """All descendants of this process except those in `keep`, and what has ended and is for one of those to reap; each comes
    after its children are listed."""
    own = os.getpid()
    todo = [own]
    while todo:
        pid = todo.pop()
        if pid in keep:
            todo.extend(filter(_lives, _children_again(pid)))
            continue
        todo.extend(_children_again(pid) if pid == own else children(pid))
        if pid != own:
            yield pid


def _lives(pid: int) -> bool:
    try:
        return _stat(pid)[0] not in (b"Z", b"X")
    except OSError:
        return False


def tree_usage(keep: frozenset[int]) -> Usage:
    """What the descendants of this process use, except those in `keep`."""
    cpu, memory, threads = 0.0, 0, 0
    for pid in descendants(keep):
        with contextlib.suppress(OSError):
            fields = _stat(pid)
            # proc(5): fields 14-17 are CPU time, own and of waited-for children, 20 threads, 24 pages
            cpu += sum(map(int, fields[11:15])) / _TICK
            threads += int(fields[17])
            memory += int(fields[21]) * _PAGE
    return Usage(cpu, memory, threads)


def cpu_seconds(pid: int) -> float:
    """CPU time that a process and its threads have used so far; 0 where it is gone."""
    with contextlib.suppress(OSError):
        return time.clock_gettime(~pid << 3 | 2)  # clock_getcpuclockid(3), which Python does not have
    return 0.0


def resident_bytes(pid: int) -> int:
    """Memory that a process has resident; 0 where it is gone."""
    with contextlib.suppress(OSError):
        return int(_stat(pid)[21]) * _PAGE
    return 0


def _stat(pid: int) -> list[bytes]:
    """The fields of /proc/PID/stat from the process's state on, which proc(5) counts as the third. Raises `OSError`."""
    return contents(f"/proc/{pid}/stat").rpartition(b")")[2].split()


def kill_all(keep: frozenset[int]) -> int:
    """Kill all descendants except those in `keep`; how many were found. Some may fork faster than they are."""
    found = 0
    for pid in descendants(keep):
        found += 1  # and killed at once: a fork bomb is fast
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return found


def reap(pid: int) -> tuple[int, Any] | None:
    """How child `pid` ended (see `os.wait4`: status and usage); None where it cannot be reaped yet. Raises `ChildProcessError`."""
    ended, status, used = os.wait4(pid, os.WNOHANG)
    if ended and not os.WIFSTOPPED(status):
        return status, used
    with contextlib.suppress(OSError):
        # Any of its threads may have had itself traced by its parent, which has to reap that one first.
        for thread in os.listdir(f"/proc/{pid}/task"):
            if int(thread) != pid:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(int(thread), os.WNOHANG | _WALL)
    return None


class Held:
    """Holds two processes that take turns to one processor, for a while: that which the kernel has this one run on.

    A program of a few milliseconds is then started where all of its memory is cached, and no other processor is woken up for it
    or told of each page that is copied: 20 % less CPU time, 40 % less time.
    """

    def __init__(self) -> None:
        self.everywhere = os.sched_getaffinity(0)
        self.processor = -1
        self._held = False

    def hold(self, other: int) -> None:
        """Hold this process and process `other`, which stays there until the next time."""
        if not self._held and (processor := _LIBC.sched_getcpu()) >= 0:  # gVisor may not tell
            self._held, self.processor = True, processor
            self._set((0, other), {processor})

    def release(self) -> None:
        """Let this process go anywhere again."""
        if self._held:
            self._held = False
            self._set((0,), self.everywhere)

    def _set(self, pids: Iterable[int], processors: Set[int]) -> None:
        with contextlib.suppress(OSError):  # gone, or a kernel that does not do that: it only costs time
            for pid in pids:
                os.sched_setaffinity(pid, processors)


def kill_tree(keep: frozenset[int]) -> Usage:
    """Kill all descendants except those in `keep`; return what those that became our children had used.

    Orphans become ours only when their parent has ended, so this repeats until none is left. Raises `SandboxError` if some are
    left after `_PATIENCE_SECONDS`.
    """
    cpu, memory = 0.0, 0
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while left := kill_all(keep):
        for pid in children(os.getpid()) - keep:
            with contextlib.suppress(ChildProcessError):
                if ended := reap(pid):
                    _, used = ended
                    cpu += used.ru_utime + used.ru_stime
                    memory = max(memory, used.ru_maxrss * 1024)
        if time.monotonic() > deadline:
            raise SandboxError(
                f"{left} processes of the program are left {_PATIENCE_SECONDS:.0f} s after SIGKILL"
            )
        time.sleep(0.0005)
    return Usage(cpu, memory)
