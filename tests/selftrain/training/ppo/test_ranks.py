"""Tests that two ranks, with DDP and with ZeRO, give the tokens and losses of one process, with PPO and with GRPO."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from selftrain.configfile import CONFIGS
from tests.command import run_ranks

KINDS = {
    ("ppo", "ddp"): None,
    ("ppo", "zero1"): "zero1.json",
    ("ppo", "zero2"): "zero2.json",
    ("ppo", "zero3"): "zero3.json",
    ("grpo", "ddp"): None,
    ("grpo", "zero3"): "zero3.json",
}


def run(out: Path, algorithm: str, ranks: int, deepspeed: str | None = None) -> dict:
    """What `tests.selftrain.training.ppo.ranks` writes."""
    settings = [CONFIGS / "deepspeed" / deepspeed] if deepspeed else []
    run_ranks(
        "tests.selftrain.training.ppo.ranks",
        out,
        algorithm,
        *settings,
        ranks=ranks,
        deepspeed=deepspeed is not None,
        seconds=600,
    )
    return json.loads(out.read_text())


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Callable[[str], dict]:
    """What one process gives with an algorithm."""
    return cache(lambda algorithm: run(tmp_path_factory.mktemp(algorithm) / "out.json", algorithm, 1))


@pytest.mark.parametrize(("algorithm", "kind"), KINDS)
def test_two_ranks_do_what_one_does(algorithm: str, kind: str, alone: Callable[[str], dict], tmp_path: Path):
    together, expected = run(tmp_path / "out.json", algorithm, 2, KINDS[algorithm, kind]), alone(algorithm)
    assert together["live"] == expected["live"], "the first step's own rollouts, token for token"
    assert len(expected["curve"]) == 5
    for ours, theirs in zip(together["curve"], expected["curve"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-6)
    assert together["weights"] == pytest.approx(expected["weights"], rel=1e-5)
    moved = [row["policy_loss"] for row in expected["curve"]]
    assert len(set(moved)) == 5
