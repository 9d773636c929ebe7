"""Measures CPU time and memory of a program's processes while they run.

CPU time and resident memory of living processes are in /proc. It does not show CPU time of a child that ended and that nobody
waited for (SIGCHLD ignored), or memory that no process maps; and resident memory counts a page once for each process that shares
it. Where the worker has a control group, the group's counters complete the picture. Elsewhere the lost CPU time is estimated, and
memory is added up page by page as soon as it may be above the limit.
"""

import contextlib
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping

from sandbox import processes
from sandbox.group import Group
from sandbox.processes import Process, Usage, anonymous_bytes, contents, contents_again, tree

_TICKS_SECONDS = 0.02
"""The error of CPU time in /proc, which counts ticks: user and system time are rounded."""


class Meter:
    """The usage of all descendants of this process except those in `keep`, from now on.

    `group`: the group that contains this process and all its descendants, if there is one. `places`: the directories in memory
    of a program's box, as paths inside it; they count towards its memory if it has an own file system there. `before_bytes`: memory
    of the group before the program started; on a busy machine the program may have much by now. `lost`: the estimate of CPU time in
    seconds that no process and no counter of /proc shows any more.
    """

    def __init__(
        self, keep: frozenset[int], group: Group | None, places: tuple[str, ...] = (), before_bytes: int = 0
    ) -> None:
        self._keep, self._group, self._places = keep, group, places
        self._seen: dict[int, Process] = {}
        self._at = time.monotonic()
        self.lost = 0.0
        self._group_cpu = self._of_group_cpu()
        self._group_memory = before_bytes - self._warm_bytes() if group else 0

    def usage(self, memory_limit: int) -> Usage:
        """The usage so far; memory: what is used now. `memory_limit`: memory below this number of bytes may be inexact."""
        before, elapsed = self._seen, -self._at
        self._seen, self._at = tree(self._keep), time.monotonic()
        self.lost += lost_seconds(before, self._seen, elapsed + self._at)
        found = self._sum()
        memory = found.memory_bytes
        if self._group:
            now = self._group.memory_bytes() - self._warm_bytes()
            # The kernel may still be freeing what the previous program left.
            self._group_memory = max(self._group.idle_bytes, min(self._group_memory, now - memory))
            held = now - self._group_memory
            memory = held if memory > memory_limit else max(memory, held)
        elif memory + _in_memory() > memory_limit:
            memory = held_bytes(self._seen, self._places)
        return Usage(max(found.cpu_seconds, self.cpu_seconds()), memory, found.threads)

    def cpu_seconds(self) -> float:
        """CPU time by the group's counter; 0 without a group."""
        return self._of_group_cpu() - self._group_cpu if self._group else 0.0

    def _sum(self) -> Usage:
        seen = self._seen.values()
        cpu = sum(one.cpu_seconds + one.waited_seconds for one in seen) + self.lost
        return Usage(cpu, sum(one.memory_bytes for one in seen), sum(one.threads for one in seen))

    def _of_group_cpu(self) -> float:
        """CPU time of the group without this process and those in `keep`."""
        if self._group is None:
            return 0.0
        return self._group.cpu_seconds() - time.process_time() - sum(map(processes.cpu_seconds, self._keep))

    def _warm_bytes(self) -> int:
        """What the group counts for this process and those in `keep`."""
        return sum(map(anonymous_bytes, (os.getpid(), *self._keep)))


def lost_seconds(before: Mapping[int, Process], now: Mapping[int, Process], elapsed: float) -> float:
    """CPU time of processes that have ended between two looks, `elapsed` seconds apart, and that nobody waited for.

    A process that was waited for appears in the waited-for time of its nearest living ancestor, at the latest when all between
    them have ended. A process that was running may have run until now, or have ended at once: the whole interval is right on
    average for processes that live shorter than that.
    """
    ended = {pid: one for pid, one in before.items() if pid not in now or now[pid].started != one.started}
    gone: dict[int, list[Process]] = {}
    for one in ended.values():
        ancestor = one.parent
        while ancestor in ended:
            ancestor = ended[ancestor].parent
        gone.setdefault(ancestor, []).append(one)
    lost = 0.0
    for ancestor, those in gone.items():
        if ancestor not in before:
            continue  # a warm process or the runner, whose own count has it
        waited = now[ancestor].waited_seconds - before[ancestor].waited_seconds
        if sum(one.cpu_seconds + one.waited_seconds for one in those) > waited + _TICKS_SECONDS:
            lost -= waited
            for one in those:
                lost += max(one.cpu_seconds + one.waited_seconds, elapsed if one.running else 0.0)
    return lost


def _in_memory() -> int:
    """Memory of the whole machine in bytes that belongs to files in memory or is shared: an upper bound for any program."""
    with contextlib.suppress(OSError):
        for line in contents_again("/proc/meminfo").splitlines():
            if line.startswith(b"Shmem:"):
                return int(line.split()[1]) << 10
    return 0


def held_bytes(pids: Iterable[int], places: tuple[str, ...]) -> int:
    """Memory of processes in bytes, each shared page once: private memory, shared memory that one of them maps (also where it
    touched none of it), and the files in memory in `places`. Resident memory where the kernel shows no more."""
    total = 0
    shared: Counter[bytes] = Counter()
    files: dict[int, int] = {}
    for pid in pids:
        try:
            rolled = contents(f"/proc/{pid}/smaps_rollup")
            maps = contents(f"/proc/{pid}/maps")
        except OSError:
            total += processes.resident_bytes(pid)
            continue
        values = dict(line.split()[:2] for line in rolled.splitlines()[1:])
        total += int(values.get(b"Pss_Anon:", b"0")) << 10
        for number, size in _shared(pid, maps):
            shared[number] = max(shared[number], size)
        for place in places:
            with contextlib.suppress(OSError):
                device = os.stat(inside := f"/proc/{pid}/root{place}").st_dev
                if device not in files and device != os.stat(place).st_dev:
                    found = os.statvfs(inside)
                    files[device] = (found.f_blocks - found.f_bfree) * found.f_frsize
    return total + sum(shared.values()) + sum(files.values())


def _shared(pid: int, maps: bytes) -> Iterable[tuple[bytes, int]]:
    """(inode, bytes) of the shared memory without a name in a file system that /proc/PID/maps lists. Where only root may ask for
    what is allocated, the bytes are those that are mapped."""
    for line in maps.splitlines():
        span, _, offset, device, number, *_ = line.split()
        if device == _KERNELS_OWN and number != b"0":
            start, end = (int(part, 16) for part in span.split(b"-"))
            size = int(offset, 16) + end - start
            with contextlib.suppress(OSError):
                size = os.stat(f"/proc/{pid}/map_files/{span.decode()}").st_blocks * 512
            yield number, size


def _device_of_memfd() -> bytes:
    """The device number of shared memory without a name, as /proc/PID/maps writes it."""
    try:
        fd = os.memfd_create("device")
    except OSError:
        return b""
    device = os.fstat(fd).st_dev
    os.close(fd)
    return b"%02x:%02x" % (os.major(device), os.minor(device))


_KERNELS_OWN = _device_of_memfd()
