"""Tests of how CPU time and memory of a program's processes are measured: `sandbox.meter` and `sandbox.group`."""

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sandbox import group
from sandbox.client import Sandbox
from sandbox.meter import Meter, lost_seconds
from sandbox.processes import Process, anonymous_bytes
from sandbox.verdicts import MIB, Limits, Program, Result, Verdict

LIMITS = Limits(cpu_seconds=1, wall_seconds=30, memory_bytes=400 * MIB, file_bytes=300 * MIB)

MEMFD = """
import os, time
file = os.memfd_create('x')
for _ in range(250): os.write(file, bytes(1 << 20))
other = os.memfd_create('y')
for _ in range(250): os.write(other, bytes(1 << 20))
time.sleep(1)
"""
SHARED_UNMAPPED = """
import mmap, time
kept = [mmap.mmap(-1, 50 << 20) for _ in range(4)]
for one in kept:
    one.write(bytes(50 << 20))
    one.madvise(mmap.MADV_DONTNEED)
time.sleep(1)
"""
SHARING = """
import os, time
data = bytearray(os.urandom(1 << 20)) * 150
for _ in range(8):
    if os.fork() == 0:
        time.sleep(1)
        os._exit(0)
for _ in range(8): os.wait()
"""
BUSY = """
import os, signal, time
def child():
    end = time.process_time() + 0.1
    while time.process_time() < end: pass
    os._exit(0)
"""
AUTOMATICALLY_REAPED = f"""{BUSY}
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for _ in range(100):
    os.fork() or child()
    time.sleep(0.12)
"""
ORPHANS = f"""{BUSY}
for _ in range(100):
    if os.fork() == 0:
        os.fork() or child()
        os._exit(0)
    os.wait()
    time.sleep(0.12)
"""
# Runs a program of Python under limits as the worker does, in a process without a group of its own.
WATCHED = """
import sys
from pathlib import Path
from sandbox.confine import become_subreaper
from sandbox.launch import Command, Spawned
from sandbox.watch import Budget, watch
become_subreaper()
command = Command((sys.executable, "-c", sys.argv[1]), Path("/"), {}, {})
found = watch(lambda stdio: Spawned(command, stdio), b"", Budget(1, 60, int(sys.argv[2]) << 20, 1 << 20, 64))
print(found.over, found.exit_code, found.stderr)
"""


def judge(sandbox: Sandbox, source: str, limits: Limits = LIMITS) -> Result:
    (result,) = sandbox.run([Program("x", "py", source, limits=limits)])
    return result


def watched(source: str, memory_mib: int = 1000) -> str:
    root = Path(__file__).parents[2]
    argv = [sys.executable, "-c", WATCHED, source, str(memory_mib)]
    return subprocess.run(argv, cwd=root, capture_output=True, text=True, check=True).stdout.split()[0]


def process(parent: int, cpu: float, waited: float = 0.0, started: int = 1, running: bool = False) -> Process:
    return Process(parent, started, running, cpu, waited, 0, 1)


def test_no_time_is_lost_when_children_are_waited_for() -> None:
    before = {10: process(1, 1.0, 2.0), 11: process(10, 0.5), 12: process(11, 0.25, 0.125)}
    assert lost_seconds(before, {10: process(1, 1.0, 2.875)}, 0.05) == 0.0
    assert lost_seconds(before, {**before, 13: process(10, 0.1)}, 0.05) == 0.0


def test_time_of_children_that_nobody_waited_for_is_lost() -> None:
    before = {10: process(1, 1.0, 2.0), 11: process(10, 0.5), 12: process(11, 0.25, 0.125)}
    assert lost_seconds(before, {10: process(1, 1.5, 2.0)}, 0.05) == pytest.approx(0.875)
    assert lost_seconds(before, {10: process(1, 1.5, 2.5)}, 0.05) == pytest.approx(0.375)
    again = {10: before[10], 11: before[11], 12: process(11, 0.0, started=2)}
    assert lost_seconds(before, again, 0.05) == pytest.approx(0.375), "another process has its number"


def test_a_lost_child_that_was_running_has_run_until_now_on_average() -> None:
    before = {10: process(1, 1.0), 11: process(10, 0.03, running=True), 12: process(10, 0.03)}
    assert lost_seconds(before, {10: process(1, 1.0)}, 0.05) == pytest.approx(0.05 + 0.03)


def test_what_a_warm_process_waits_for_is_its_own_count() -> None:
    assert lost_seconds({11: process(5, 0.5)}, {}, 0.05) == 0.0


WARM = """
import mmap, sys, time
with open(sys.argv[1], "r+b") as file:
    kept = mmap.mmap(file.fileno(), 0)
for at in range(0, len(kept), 4096):
    kept[at]
print("ready", flush=True)
time.sleep(60)
"""
"""A process with a large file in memory, as warm compilers have; a group does not count it."""


def test_memory_that_a_program_has_before_the_first_look_counts(tmp_path: Path) -> None:
    """A busy machine may look at a program late."""
    (tmp_path / "large").write_bytes(bytes(200 * MIB))
    argv = [sys.executable, "-c", WARM, str(tmp_path / "large")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as warm:
        assert warm.stdout
        assert warm.stdout.readline() == b"ready\n"
        before = anonymous_bytes(os.getpid()) + anonymous_bytes(warm.pid)
        group: Any = SimpleNamespace(
            idle_bytes=0, memory_bytes=lambda: before + 300 * MIB, cpu_seconds=time.process_time
        )
        used = Meter(frozenset({warm.pid}), group, before_bytes=before).usage(500 * MIB)
        warm.kill()
    assert used.memory_bytes == pytest.approx(300 * MIB, abs=20 * MIB)


def test_memory_in_memfd_counts(sandbox: Sandbox) -> None:
    result = judge(sandbox, MEMFD)
    # Where the worker has no control group, memfd_create is refused.
    assert result.verdict is Verdict.memory_exceeded or "Function not implemented" in result.stderr


def test_files_in_memory_count(boxed: Sandbox) -> None:
    source = """
import time
for place in ('/tmp', '/dev/shm'):
    with open(f'{place}/x', 'wb') as file: file.write(bytes(240 << 20))
time.sleep(1)
"""
    assert judge(boxed, source).verdict is Verdict.memory_exceeded
    assert judge(boxed, source.replace("240", "100")).verdict is Verdict.passed


def test_shared_memory_that_is_not_resident_counts(sandbox: Sandbox) -> None:
    limits = Limits(memory_bytes=300 * MIB)
    assert (
        judge(sandbox, f"import os\nos.fork()\n{SHARED_UNMAPPED}", limits).verdict is Verdict.memory_exceeded
    )
    assert judge(sandbox, SHARED_UNMAPPED, limits).verdict is Verdict.passed


def test_memory_that_processes_share_counts_once(sandbox: Sandbox) -> None:
    result = judge(sandbox, SHARING)
    assert result.verdict is Verdict.passed
    assert 150 * MIB < result.peak_memory_bytes < 400 * MIB


def test_memory_is_added_up_without_a_control_group() -> None:
    assert watched(SHARING, 400) == "None"
    assert (
        watched(SHARING.replace("time.sleep", "data[::4096] = bytes(len(data[::4096])); time.sleep"), 400)
        == "memory_exceeded"
    )
    assert watched(f"import os\nos.fork()\n{SHARED_UNMAPPED}", 300) == "memory_exceeded"
    assert watched(SHARED_UNMAPPED, 300) == "None"


@pytest.mark.parametrize("source", [AUTOMATICALLY_REAPED, ORPHANS], ids=["automatically reaped", "orphans"])
def test_cpu_time_of_children_that_nobody_waits_for_counts(sandbox: Sandbox, source: str) -> None:
    result = judge(sandbox, source)
    assert result.verdict is Verdict.timeout
    assert result.cpu_seconds < 3


@pytest.mark.parametrize("source", [AUTOMATICALLY_REAPED, ORPHANS], ids=["automatically reaped", "orphans"])
def test_cpu_time_is_estimated_without_a_control_group(source: str) -> None:
    assert watched(source) == "timeout"


def test_a_program_whose_children_are_waited_for_is_charged_once(sandbox: Sandbox) -> None:
    source = f"{BUSY}\nfor _ in range(6):\n    os.fork() or child()\n    os.wait()\n"
    result = judge(sandbox, source)
    assert result.verdict is Verdict.passed
    assert 0.6 <= result.cpu_seconds < 1


def in_own_group(probe: str) -> str:
    """What a script prints that has the worker's new group as `made`. Skips the test where no group can be made."""
    start = "import os\nfrom pathlib import Path\nfrom sandbox import group\nmade = group.own()\nif made is None: raise SystemExit('none')\n"
    root = Path(__file__).parents[2]
    argv = [sys.executable, "-c", start + probe]
    done = subprocess.run(argv, cwd=root, capture_output=True, text=True, check=False)
    if "none" in done.stderr:
        pytest.skip("no control group can be made here")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_group_counts_what_has_ended_and_is_removed() -> None:
    probe = f"""
before, memory = made.cpu_seconds(), made.memory_bytes()
file = os.memfd_create("x")
for _ in range(50): os.write(file, bytes(1 << 20))
exec({AUTOMATICALLY_REAPED.replace("100", "5")!r})
try:
    os.wait()  # until all have ended
except ChildProcessError:
    pass
print(made.cpu_seconds() - before >= 0.4, (made.memory_bytes() - memory) >> 20 >= 45, all(map(os.path.exists, made.folders)))
made.close()
print(any(map(os.path.exists, made.folders)))
"""
    assert in_own_group(probe).split() == ["True", "True", "True", "False"]


def test_the_kernel_enforces_the_limit_of_a_group() -> None:
    probe = f"""
made.limit({100 * MIB})
print(*(folder.joinpath(name).read_text() for folder in made.folders for name in ("memory.max", "memory.limit_in_bytes")
        if folder.joinpath(name).exists()))
made.close()
"""
    assert int(in_own_group(probe)) == 1124 * MIB


def test_groups_of_killed_workers_are_removed() -> None:
    probe = """
left = [folder.with_name("sandbox-99999999") for folder in made.folders]  # above the highest process id
for folder in left: folder.mkdir()
for folder in left: group._tidy(folder.parent)
print(any(map(os.path.exists, left)), all(map(os.path.exists, made.folders)))
made.close()
"""
    assert in_own_group(probe) == "False True\n"


def test_a_machine_without_control_groups_has_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(group, "_ROOT", tmp_path)
    assert group.of_container() is None
    assert group.own() is None
    (tmp_path / "cgroup.controllers").write_text("")
    (tmp_path / "memory.stat").write_text("anon 1\nshmem 2\n")
    (tmp_path / "cpu.stat").write_text("usage_usec 1500000\nuser_usec 1\n")
    assert group.of_container() is None, "only the machine's root group has no memory.events"
    (tmp_path / "memory.events").write_text("oom 3\noom_kill 2\n")
    found = group.of_container()
    assert found is not None
    assert (found.cpu_seconds(), found.memory_bytes(), found.kills()) == (1.5, 3, 2)
