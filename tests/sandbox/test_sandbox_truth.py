"""Runs `tests.truth` on a fixed sample: on real MultiPL-E problems the sandbox's verdicts must equal those of plain runs."""

import os
import subprocess
import sys
from pathlib import Path

from tests.command import ROOT
from tests.needs import need
from tests.sandbox.conftest import EIGHT, need_backend

ROWS = 40


def test_verdicts_are_those_of_plain_runs() -> None:
    need_backend("docker")
    directory = Path(os.environ.get("MULTIPL_E_DIR", ""))
    there = all((directory / f"mbpp-{name}.jsonl").is_file() for name in EIGHT)
    need(there, "set MULTIPL_E_DIR to a folder with mbpp-LANG.jsonl files")
    sample = ["--rows", str(ROWS), "--plain", "1", "--busy", "0", "--jobs", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.truth", directory, *sample],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert f"{ROWS * len(EIGHT)} programs, 0 unstable, 0 differ" in done.stdout, (
        done.stdout + done.stderr[-2000:]
    )
    assert done.returncode == 0
