"""Finds, measures and kills the processes that a program started, on Linux (it reads /proc).

The runner is a *subreaper*: a descendant whose parent ends, even a daemon in its own session, becomes a child of the runner. So
all descendants of the runner belong to the program, except its warm interpreter and compilers (`keep`, a set of process ids).
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
_WALL = 0x40000000  # __WALL of wait4(2): also children that are threads
_PATIENCE_SECONDS = 10.0
_CHILDREN = "/proc/{0}/task/{0}/children"


@dataclass(frozen=True)
class Usage:
    """Resources that processes use: CPU time, resident memory, number of threads."""

    cpu_seconds: float = 0.0
    memory_bytes: int = 0
    threads: int = 0


def contents(path: str) -> bytes:
    """The contents of a file of /proc or /sys, read in a third of the time that `open` takes. Raises `OSError`."""
    fd = os.open(path, os.O_RDONLY)
    try:
        found = b""
        while more := os.read(fd, 1 << 16):
            found += more
        return found
    finally:
        os.close(fd)


_open: dict[str, int] = {}  # the descriptors that `contents_again` keeps open, by path


def contents_again(path: str) -> bytes:
    """As `contents`, for a file of at most a page that is read for every program; the file stays open. Raises `OSError`."""
    if path not in _open:
        _open[path] = os.open(path, os.O_RDONLY)
    return os.pread(_open[path], 1 << 16, 0)


def forget(pid: int) -> None:
    """Close the file of process `pid` that `contents_again` keeps open. Call it before the kernel can reuse the process id."""
    if (fd := _open.pop(_CHILDREN.format(pid), None)) is not None:
        os.close(fd)


def children(pid: int) -> set[int]:
    """The children of process `pid`, zombies included; empty if the process has ended."""
    found: set[int] = set()
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                found.update(map(int, contents(f"/proc/{pid}/task/{thread}/children").split()))
    return found


def _children_again(pid: int) -> set[int]:
    """As `children`, but faster. Only for this process and those in `keep`, whose first thread has all relevant children."""
    with contextlib.suppress(OSError):
        listed = contents_again(_CHILDREN.format(pid))
        if len(listed) < _PAGE // 2 and threading.active_count() == 1:  # otherwise the list may be incomplete
            return set(map(int, listed.split()))
    return children(pid)


def descendants(keep: frozenset[int]) -> Iterator[int]:
    """All descendants of this process, except the processes in `keep` and the zombies that these have to reap. The children of a
    process are listed before the process is yielded, so the caller may kill it at once."""
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


@dataclass(frozen=True)
class Process:
    """A process at one moment. `started`: in clock ticks since boot; process ids are used again. `cpu_seconds`: of its own,
    `waited_seconds`: of the children that it waited for. `running`: not asleep."""

    parent: int
    started: int
    running: bool
    cpu_seconds: float
    waited_seconds: float
    memory_bytes: int
    threads: int


def tree(keep: frozenset[int]) -> dict[int, Process]:
    """All descendants of this process except those in `keep`, by process id."""
    found = {}
    for pid in descendants(keep):
        with contextlib.suppress(OSError):
            fields = _stat(pid)
            # proc(5): fields 3 state, 4 parent, 14-17 CPU time, own and of waited-for children, 20 threads, 22 start, 24 pages
            own, waited = (sum(map(int, fields[at : at + 2])) / _TICK for at in (11, 13))
            found[pid] = Process(
                int(fields[1]), int(fields[19]), fields[0] == b"R", own, waited, int(fields[21]) * _PAGE, int(fields[17])
            )  # fmt: skip
    return found


def cpu_seconds(pid: int) -> float:
    """CPU time in seconds that a process and its threads have used so far; 0 if the process has ended."""
    with contextlib.suppress(OSError):
        return time.clock_gettime(~pid << 3 | 2)  # clock_getcpuclockid(3), which Python does not have
    return 0.0


def anonymous_bytes(pid: int) -> int:
    """Resident memory of a process in bytes that belongs to no file, as a control group counts it; 0 if the process has ended."""
    with contextlib.suppress(OSError):
        _, resident, of_files, *_ = map(int, contents(f"/proc/{pid}/statm").split())
        return (resident - of_files) * _PAGE
    return 0


def resident_bytes(pid: int) -> int:
    """Resident memory of a process in bytes; 0 if the process has ended."""
    with contextlib.suppress(OSError):
        return int(_stat(pid)[21]) * _PAGE
    return 0


def _stat(pid: int) -> list[bytes]:
    """The fields of /proc/PID/stat from the state on, which is field 3 in proc(5). Raises `OSError`."""
    return contents(f"/proc/{pid}/stat").rpartition(b")")[2].split()


def kill_all(keep: frozenset[int]) -> int:
    """Kill all descendants except those in `keep`. Returns how many were found. A fork bomb may create processes faster than one
    call kills them."""
    found = 0
    for pid in descendants(keep):
        found += 1  # kill each as soon as it is found, because a fork bomb is fast
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return found


def reap(pid: int) -> tuple[int, Any] | None:
    """Reap child `pid`. Returns its status and usage as in `os.wait4`; None if the child cannot be reaped yet. Raises
    `ChildProcessError`."""
    ended, status, used = os.wait4(pid, os.WNOHANG)
    if ended and not os.WIFSTOPPED(status):
        return status, used
    with contextlib.suppress(OSError):
        # A thread of the child may have made this process its tracer (PTRACE_TRACEME). Then this process has to reap it first.
        for thread in os.listdir(f"/proc/{pid}/task"):
            if int(thread) != pid:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(int(thread), os.WNOHANG | _WALL)
    return None


class Pinned:
    """Pins this process and another that takes turns with it to the processor on which this process runs.

    A short program then starts on the processor that has its memory in the cache, and the kernel has to wake up no other
    processor and tell none about copied pages. This saves 20 % of CPU time and 40 % of wall-clock time.
    """

    def __init__(self) -> None:
        self.everywhere = os.sched_getaffinity(0)
        self.processor = -1
        self._is_pinned = False

    def pin(self, other: int) -> None:
        """Pin this process and process `other` to one processor. `other` stays pinned after `release`."""
        if not self._is_pinned and (processor := _LIBC.sched_getcpu()) >= 0:  # gVisor may not support this
            self._is_pinned, self.processor = True, processor
            self._set((0, other), {processor})

    def release(self) -> None:
        """Let this process run on all its processors again."""
        if self._is_pinned:
            self._is_pinned = False
            self._set((0,), self.everywhere)

    def _set(self, pids: Iterable[int], processors: Set[int]) -> None:
        # Fails if the process has ended, or on kernels without affinity; then programs are only slower.
        with contextlib.suppress(OSError):
            for pid in pids:
                os.sched_setaffinity(pid, processors)


def kill_tree(keep: frozenset[int]) -> Usage:
    """Kill and reap all descendants except those in `keep`. Returns the usage of the processes that this process reaped.

    An orphan becomes a child of this process only when its parent has ended, so the search is repeated until no process is left.
    Raises `SandboxError` if processes are left after `_PATIENCE_SECONDS`.
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
