"""Kills a run with SIGKILL at many moments and checks that it ends as an undisturbed one does.

    python -m tests.kill_at_random --moments 10

A run of configs/smoke.yaml is made undisturbed. Then, in a store of its own, the same run is killed again and again, its
whole process group at once, each time a few stages further and some random time into a stage, and let finish at last. Every
stage's records digest and the report's metrics must be the same, and no process of a killed run may be left.
"""

import argparse
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
SECONDS_TO_END = 15


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


def compare(folder: Path, moments: int, seed: int) -> int:
    """Both runs, and a table of what differs."""
    finish(folder / "undisturbed")
    rng = random.Random(seed)
    for moment in range(moments):
        kill_once(folder / "killed", stages=moment * STAGES // moments, delay=rng.uniform(0, 4))
    finish(folder / "killed")
    expected, found = outcome(folder / "undisturbed"), outcome(folder / "killed")
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
            [*command, "--out", str(folder / "out")], stdout=log, stderr=log, start_new_session=True
        )


def finish(folder: Path) -> None:
    """Let the run end."""
    if start(folder).wait() != 0:
        raise SystemExit(f"the run failed:\n{(folder / 'log').read_text()[-3000:]}")


def kill_once(folder: Path, stages: int, delay: float) -> None:
    """Start the run, and kill it `delay` seconds after it has finished `stages` stages."""
    run = start(folder)
    while finished(folder) < stages and run.poll() is None:
        time.sleep(0.2)
    time.sleep(delay)
    print(f"killed after {finished(folder)} of {STAGES} stages and {delay:.1f} s", flush=True)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    deadline = time.monotonic() + SECONDS_TO_END
    while left := processes_of(folder):
        if time.monotonic() > deadline:
            raise SystemExit(f"still there {SECONDS_TO_END} s after the kill: {left}")
        time.sleep(0.2)


def finished(folder: Path) -> int:
    """Number of artifacts in the store."""
    return len(list((folder / "store").glob("*/*/manifest.json")))


def processes_of(folder: Path) -> list[str]:
    """Command lines of living processes that name the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder / "store") in line:
            found.append(line)
    return found


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
