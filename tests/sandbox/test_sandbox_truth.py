"""Runs `tests.truth` on a fixed sample: on real MultiPL-E problems the sandbox's verdicts must equal those of plain runs."""

from tests.plain import KEPT
from tests.sandbox.conftest import EIGHT, on_a_sample

ROWS = 40


def test_verdicts_are_those_of_plain_runs() -> None:
    sample = ("--rows", str(ROWS), "--plain", "1", "--busy", "0", "--jobs", "2", "--kept", str(KEPT))
    done = on_a_sample("tests.truth", *sample)
    assert f"{ROWS * len(EIGHT)} programs, 0 unstable, 0 differ" in done.stdout, (
        done.stdout + done.stderr[-2000:]
    )
    assert done.returncode == 0
