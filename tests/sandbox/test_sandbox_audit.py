"""Runs `tests.audit` on a fixed sample: of real programs that pass, none is called tampered."""

import os
import subprocess
import sys
from pathlib import Path

from tests.command import ROOT
from tests.needs import need
from tests.sandbox.conftest import EIGHT, need_backend

ROWS = 40


def test_no_program_that_passes_is_called_tampered() -> None:
    need_backend("docker")
    directory = Path(os.environ.get("MULTIPL_E_DIR", ""))
    there = all((directory / f"mbpp-{name}.jsonl").is_file() for name in EIGHT)
    need(there, "set MULTIPL_E_DIR to a folder with mbpp-LANG.jsonl files")
    done = subprocess.run(
        [sys.executable, "-m", "tests.audit", directory, "--rows", str(ROWS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.stdout.endswith("\n0 tampered\n"), done.stdout + done.stderr[-2000:]
    assert done.returncode == 0
    assert done.stdout.count(f" | {ROWS} | ") == len(EIGHT)
