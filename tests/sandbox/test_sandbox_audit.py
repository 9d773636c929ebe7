"""Runs `tests.audit` on a fixed sample: of real programs that pass, none is called tampered."""

import re

from tests.sandbox.conftest import EIGHT, on_a_sample

ROWS = 40


def test_no_program_that_passes_is_called_tampered() -> None:
    done = on_a_sample("tests.audit", "--rows", str(ROWS))
    assert done.stdout.endswith("\n0 tampered\n"), done.stdout + done.stderr[-2000:]
    assert done.returncode == 0
    assert len(re.findall(rf"(?m)^\| \w+ \| {ROWS} \| ", done.stdout)) == len(EIGHT)
