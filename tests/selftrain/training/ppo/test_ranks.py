"""Tests that PPO on two ranks, with DDP and with each stage of ZeRO, gives the tokens and losses of one process."""

import json
from pathlib import Path

import pytest

from selftrain.configfile import CONFIGS
from tests.command import run_ranks

KINDS = {"ddp": None, "zero1": "zero1.json", "zero2": "zero2.json", "zero3": "zero3.json"}


def run(out: Path, ranks: int, deepspeed: str | None = None) -> dict:
    """What `tests.selftrain.training.ppo.ranks` writes."""
    settings = [CONFIGS / "deepspeed" / deepspeed] if deepspeed else []
    run_ranks(
        "tests.selftrain.training.ppo.ranks",
        out,
        *settings,
        ranks=ranks,
        deepspeed=deepspeed is not None,
        seconds=600,
    )
    return json.loads(out.read_text())


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> dict:
    """One process."""
    return run(tmp_path_factory.mktemp("alone") / "out.json", 1)


@pytest.mark.parametrize("kind", KINDS)
def test_two_ranks_do_what_one_does(kind: str, alone: dict, tmp_path: Path):
    together = run(tmp_path / "out.json", 2, KINDS[kind])
    assert together["live"] == alone["live"], "the first step's own rollouts, token for token"
    assert len(alone["curve"]) == 5
    for ours, theirs in zip(together["curve"], alone["curve"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-6)
    assert together["weights"] == pytest.approx(alone["weights"], rel=1e-5)
    moved = [row["policy_loss"] for row in alone["curve"]]
    assert len(set(moved)) == 5
