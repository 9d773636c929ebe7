"""The control group (cgroup, version 1 or 2) of a worker, which contains its warm processes and its programs.

A group counts what /proc does not show: CPU time of children that nobody waited for, and memory that no process maps (memfd,
files in memory, System V shared memory). In a container, the group is the container's. On the machine, a worker makes a group for
itself if it may: as root, or in a part of the tree that is delegated to the user. Where there is none, `sandbox.meter` estimates.
"""

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

from sandbox.processes import anonymous_bytes, contents_again
from sandbox.verdicts import MIB

_ROOT = Path("/sys/fs/cgroup")
_NAME = "sandbox-"
_WARM_BYTES = 1024 * MIB
"""Memory that a worker's own processes may use (compilers, the interpreter), besides the program's limit."""


@dataclass(frozen=True)
class _Files:
    """Names of a version's files and of the values in them. `cpu_unit`: how many units of CPU time are a second."""

    cpu: str
    cpu_unit: float
    memory: tuple[bytes, bytes]
    kills: str
    limit: str


_V1 = _Files(
    "cpuacct.usage", 1e9, (b"total_rss", b"total_shmem"), "memory.oom_control", "memory.limit_in_bytes"
)
_V2 = _Files("cpu.stat", 1e6, (b"anon", b"shmem"), "memory.events", "memory.max")


_PATIENCE_SECONDS = 1.0


class Group:
    """A worker's group. `memory`, `cpu`: its folders, which with version 2 are the same one. `before`: the folders from which
    this process came; empty if the group is not its own. `idle_bytes`: memory besides that of processes at the beginning, when no
    program runs. Raises `OSError`, `ValueError` if the group counts no memory or no
    CPU time."""

    def __init__(self, memory: Path, cpu: Path, before: tuple[Path, ...] = ()) -> None:
        self._files = _V2 if memory == cpu else _V1
        self.folders = tuple(dict.fromkeys((memory, cpu)))
        self._memory, self._before = memory, before
        self._stat, self._cpu = str(memory / "memory.stat"), str(cpu / self._files.cpu)
        self._kills = str(memory / self._files.kills)
        self._limit = 0
        self.cpu_seconds()
        self.idle_bytes = self.memory_bytes() - anonymous_bytes(os.getpid())
        contents_again(self._kills)  # which the root group of the whole machine does not have

    def cpu_seconds(self) -> float:
        """CPU time of all processes that are or were in the group. Raises `OSError`."""
        said = contents_again(self._cpu)
        return int(said.removeprefix(b"usage_usec ").partition(b"\n")[0]) / self._files.cpu_unit

    def memory_bytes(self) -> int:
        """Memory of the group that is not a copy of a file on disk, in bytes. Raises `OSError`."""
        said = b"\n" + contents_again(self._stat)
        return sum(int(said.partition(b"\n%s " % name)[2].partition(b"\n")[0]) for name in self._files.memory)

    def kills(self) -> int:
        """How many processes of the group the kernel has killed so far because memory ran out; 0 if it is unknown."""
        with contextlib.suppress(OSError, KeyError):
            return int(dict(line.split() for line in contents_again(self._kills).splitlines())[b"oom_kill"])
        return 0

    def limit(self, memory_bytes: int) -> None:
        """Let the kernel enforce a program's memory limit too, if the group is this process's own."""
        if self._before and memory_bytes != self._limit:
            self._limit = memory_bytes
            with contextlib.suppress(OSError):
                (self._memory / self._files.limit).write_text(str(memory_bytes + _WARM_BYTES))

    def close(self) -> None:
        """Leave and remove the group, if it is this process's own. No other process may be in it."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        for folder, before in zip(self.folders, self._before, strict=False):
            with contextlib.suppress(OSError):
                (before / "cgroup.procs").write_text(str(os.getpid()))
            while folder.exists() and time.monotonic() < deadline:
                try:
                    folder.rmdir()
                except OSError:  # the kernel takes a moment to let go of processes that have ended
                    time.sleep(0.01)


def of_container() -> Group | None:
    """The group of the container in which this process runs; None if it cannot be read."""
    with contextlib.suppress(OSError, ValueError):
        return Group(_ROOT, _ROOT) if _is_v2() else Group(_ROOT / "memory", _ROOT / "cpuacct")
    return None


def own() -> Group | None:
    """Make a group and move this process into it. None if that is not possible here."""
    current: list[Path] = []
    with contextlib.suppress(OSError, ValueError, KeyError):  # a kernel without control groups
        current = _current()
    # A group that has processes cannot pass on the memory controller of version 2, so the second try is beside this group.
    for before in [current, [folder.parent for folder in current]] if current else ():
        if (made := _made(before, current)) is not None:
            return made
    return None


def _made(parents: list[Path], before: list[Path]) -> Group | None:
    """A new group in the folders `parents`, which this process has entered from the folders `before`."""
    folders = [parent / f"{_NAME}{os.getpid()}" for parent in parents]
    try:
        for parent, folder in zip(parents, folders, strict=True):
            _tidy(parent)
            folder.mkdir(exist_ok=True)
        group = Group(folders[0], folders[-1], tuple(before))
        with contextlib.suppress(OSError):
            (folders[0] / "memory.swap.max").write_text("0")
        for folder in folders:
            (folder / "cgroup.procs").write_text(str(os.getpid()))
        return group
    except (OSError, ValueError):
        for folder, old in zip(folders, before, strict=True):
            with contextlib.suppress(OSError):
                (old / "cgroup.procs").write_text(str(os.getpid()))
            with contextlib.suppress(OSError):
                folder.rmdir()
        return None


def _current() -> list[Path]:
    """The folders of this process's group: one with version 2, else those that count memory and CPU time. Empty if unknown."""
    paths: dict[str, str] = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        paths |= dict.fromkeys(controllers.split(","), path.strip("/"))
    if _is_v2():
        return [_ROOT / paths[""]]
    if not {"memory", "cpuacct"} <= paths.keys():
        return []
    return [_ROOT / name / paths[name] for name in ("memory", "cpuacct")]


def _is_v2() -> bool:
    return (_ROOT / "cgroup.controllers").exists()


def _tidy(parent: Path) -> None:
    """Remove the groups of workers that were killed. The kernel removes only groups without processes."""
    for left in parent.glob(f"{_NAME}*"):
        if not Path("/proc", left.name.removeprefix(_NAME)).exists():
            with contextlib.suppress(OSError):
                left.rmdir()
