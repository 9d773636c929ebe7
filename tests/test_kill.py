"""Runs `tests.kill_at_random` for two moments: a killed run, started again, ends like an undisturbed one."""

from pathlib import Path

from tests.command import Finished
from tests.kill_at_random import compare


def test_a_run_killed_twice_ends_as_an_undisturbed_one(smoke_run: Finished, tmp_path: Path):
    assert compare(tmp_path, moments=2, seed=3, undisturbed=smoke_run.out.parent) == 0
