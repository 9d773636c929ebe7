"""Kills a run with SIGKILL at many moments and checks that it still ends like an undisturbed run.

    python -m tests.kill_at_random --moments 10

First a run of configs/smoke.yaml ends undisturbed. Then the same run, in another store, is killed again and again with its
whole process group, each time a few stages later and at a random time within a stage; at last it may finish. The records digest
of every stage and the report's metrics must be equal, and no process of a killed run may remain.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STAGES = 20
SECONDS_TO_END = 60
"""A child that is still importing its libraries notices only after that; far less on an idle machine."""


def main() -> int:
    """Run it; 0 if the killed run ended as the undisturbed one."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--moments", type=int, default=10)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        return compare(asked.folder or Path(scratch), asked.moments, asked.seed)


def compare(folder: Path, moments: int, seed: int, undisturbed: Path | None = None) -> int:
    """Both runs, and a table of what differs. `undisturbed`: the folder of such a run that is finished already."""
    if undisturbed is None:
        undisturbed = folder / "undisturbed"
        finish(undisturbed)
    rng = random.Random(seed)
    killed: set[tuple[str, str]] = set()
    for moment in range(moments):
        stages = moment * (STAGES - 3) // moments  # a run that is nearly done ends before it can be killed
        killed |= kill_once(folder / "killed", stages, delay=rng.uniform(0, 2))
        if moment % 2:  # else the next run starts at once, while processes of this one may still be there
            wait_for_end(folder / "killed", killed)
    finish(folder / "killed")
    wait_for_end(folder / "killed", killed)
    expected, found = outcome(undisturbed), outcome(folder / "killed")
    different = [name for name in expected if expected[name] != found.get(name)]
    for name in expected:
        print(f"{'DIFFERENT' if name in different else 'same':<10} {name}")
    print(f"killed {moments} times: {len(expected) - len(different)} of {len(expected)} results are the same")
    return 1 if different else 0


def start(folder: Path) -> subprocess.Popen[bytes]:
    """The smoke run in a process group of its own, with its store and its output in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "flows.cli", "run", "smoke", "--set", f"store={folder / 'store'}"]
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            [*command, "--out", str(folder / "out")],
            env=os.environ | {"KILLED_RUN": str(folder)},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def finish(folder: Path) -> None:
    """Let the run end."""
    if start(folder).wait() != 0:
        raise SystemExit(f"the run failed:\n{(folder / 'log').read_text()[-3000:]}")


def kill_once(folder: Path, stages: int, delay: float) -> set[tuple[str, str]]:
    """Start the run, and kill it `delay` seconds after it has finished `stages` stages; its processes at that moment."""
    run = start(folder)
    while finished(folder) < stages and run.poll() is None:
        time.sleep(0.2)
    with contextlib.suppress(subprocess.TimeoutExpired):
        run.wait(delay)
    if run.poll() is not None:
        raise SystemExit(f"the run ended before it could be killed:\n{(folder / 'log').read_text()[-3000:]}")
    known = descendants(run.pid)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    print(
        f"killed {delay:.1f} s after stage {finished(folder)} of {STAGES}, {len(known)} processes", flush=True
    )
    return known


def wait_for_end(folder: Path, killed: set[tuple[str, str]]) -> None:
    """Wait until nothing is left of the killed runs. Raises SystemExit where something stays."""
    began = time.monotonic()
    while left := living(killed) + processes_of(folder):
        if time.monotonic() > began + SECONDS_TO_END:
            raise SystemExit(f"still there {SECONDS_TO_END} s after the kill: {left}")
        time.sleep(0.2)
    print(f"the last process was gone {time.monotonic() - began:.1f} s later", flush=True)


def finished(folder: Path) -> int:
    """Number of artifacts in the store."""
    return len(list((folder / "store").glob("*/*/manifest.json")))


def processes_of(folder: Path) -> list[str]:
    """Command lines of living processes that were started by the run, by their environment."""
    mark = f"KILLED_RUN={folder}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (path / "environ").read_bytes().split(b"\0"):
                found.append((path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return found


def descendants(pid: int) -> set[tuple[str, str]]:
    """The process and all below it, sandboxed programs included: ids with the times at which they started."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*"):
        if fields := stat_of(path.name):
            parents[path.name, fields[19]] = fields[1]
    found = {process for process in parents if process[0] == str(pid)}
    while more := {p for p, parent in parents.items() if parent in {id for id, _ in found}} - found:
        found |= more
    return found


def living(processes: set[tuple[str, str]]) -> list[str]:
    """Those of them that are still there and no zombies."""
    found = [(process, stat_of(process[0])) for process in sorted(processes)]
    return [
        f"process {id}"
        for (id, began), fields in found
        if fields and fields[19] == began and fields[0] != "Z"
    ]


def stat_of(pid: str) -> list[str]:
    """The fields of /proc/PID/stat behind the name: state, parent, ..., at place 19 the time of its start; [] without."""
    try:
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def outcome(folder: Path) -> dict[str, object]:
    """Per stage its records digest, and the report's metrics."""
    run = json.loads((folder / "out" / "run.json").read_text())
    results: dict[str, object] = {}
    for name, ref in run["stages"].items():
        manifest = folder / "store" / ref["stage"] / ref["key"] / "manifest.json"
        results[name] = json.loads(manifest.read_text())["records_digest"]
    report = json.loads((folder / "out" / "report.json").read_text())
    return results | {"report's pools": report["pools"], "report's comparisons": report["comparisons"]}


if __name__ == "__main__":
    sys.exit(main())
