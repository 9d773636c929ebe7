"""Tests that results of the stages sft, sample, train_reward and ppo change only with the stage's version.

Each is built from a tiny fixture; versions.json contains metrics of the results. Processors round differently, so the metrics
are compared to one part in a hundred. A comment in any file changes no key.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from selftrain.config import PPOConfig, RewardConfig, RuntimeConfig, SampleConfig, SftConfig
from selftrain.records import Candidate, Pair, read_records, write_records
from selftrain.stage import Context, Outcome, Stage
from selftrain.stages.ppo import PPO, PPOSlice
from selftrain.stages.sample import SAMPLE, SampleSlice
from selftrain.stages.sft import SFT, SftSlice
from selftrain.stages.train_reward import TRAIN_REWARD, RewardSlice
from tests.command import ROOT
from tests.selftrain.conftest import TINY
from tests.selftrain.stages.test_versions import TABLE, check

Figures = dict[str, float]


@dataclass(frozen=True)
class Made:
    """What the stages start from, and where they write."""

    problems: Path
    generator: Path
    reranker: Path
    folder: Path


def built(made: Made, stage: Stage, config: Any, **inputs: Path) -> Outcome:
    """The stage's outcome; its files are in `made.folder`."""
    return stage.run(Context(config, inputs, made.folder, RuntimeConfig(processes=1), lambda *_, **__: None))


def curve(outcome: Outcome, *names: str) -> Figures:
    """The named figures of each training step."""
    return {f"{name} {row['step']}": row[name] for row in outcome.metrics["curve"] for name in names}


def sft(made: Made) -> Figures:
    settings = SftConfig(
        epochs=2, batch_size=4, micro_batch_size=2, max_tokens=96, warmup_steps=1, learning_rate=1e-2
    )
    config = SftSlice(seed=1, model=TINY, base_digest=None, sft=settings)
    outcome = built(made, SFT, config, problems=made.problems)
    return {"examples": outcome.metrics["examples"]} | curve(outcome, "loss")


def sample(made: Made) -> Figures:
    settings = SampleConfig(engine="hf", max_new_tokens=12)
    config = SampleSlice(seed=1, sample=settings, splits=("rl",), count=3, greedy=True)
    built(made, SAMPLE, config, problems=made.problems, generator=made.generator)
    drawn = read_records(made.folder / "candidates.parquet", Candidate)
    tokens = sum(len(one.token_ids) for one in drawn)
    return {"candidates": len(drawn), "tokens": tokens, "logprob": sum(one.logprob for one in drawn)}


def train_reward(made: Made) -> Figures:
    pairs = [
        Pair("a", "def add(n):\n", f"    return n + {at}\n", f"    return {'n' * at}\n", "a#0", "a#1", "on_policy", 1)
        for at in range(4)
    ]  # fmt: skip
    write_records(made.folder / "pairs.parquet", pairs, Pair)
    settings = RewardConfig(batch_size=2, micro_batch_size=2, epochs=2, learning_rate=1e-4, warmup_steps=0)
    config = RewardSlice(seed=1, reward=settings, continues=True)
    outcome = built(made, TRAIN_REWARD, config, pairs=made.folder, start=made.reranker)
    return {"pairs": outcome.metrics["pairs"]} | curve(outcome, "loss", "margin")


def ppo(made: Made) -> Figures:
    settings = PPOConfig(steps=2, rollout_batch=4, mini_batch=2, micro_batch=2, learning_rate=1e-3)
    config = PPOSlice(seed=3, ppo=settings, max_new_tokens=10)
    inputs = {"problems": made.problems, "generator": made.generator, "reranker": made.reranker}
    outcome = built(made, PPO, config, **inputs)
    names = ("reward", "score", "kl", "entropy", "tokens", "policy_loss", "value_loss")
    return curve(outcome, *names)


STAGES: dict[str, tuple[Stage, Callable[[Made], Figures]]] = {
    "sft": (SFT, sft),
    "sample": (SAMPLE, sample),
    "train_reward": (TRAIN_REWARD, train_reward),
    "ppo": (PPO, ppo),
}


@pytest.mark.parametrize("name", STAGES)
def test_a_trained_result_changes_only_with_its_stages_version(
    name: str,
    problems: Path,
    generator: Path,
    reranker: Path,
    tmp_path: Path,
):
    stage, make = STAGES[name]
    figures = make(Made(problems, generator, reranker, tmp_path))
    check(json.loads(TABLE.read_text()), stage, "figures", pytest.approx(figures, rel=1e-2, abs=1e-3))


def test_other_figures_fail():
    known = {"sft": {"version": SFT.version, "figures": {"loss 1": 5.0}}}
    check(known, SFT, "figures", pytest.approx({"loss 1": 5.001}, rel=1e-3))
    with pytest.raises(pytest.fail.Exception, match=r"raise its version in sft.py, .*\"loss 1\": 5.1"):
        check(known, SFT, "figures", pytest.approx({"loss 1": 5.1}, rel=1e-3))


KEYS = """
import json, sys
from pathlib import Path
from tests.selftrain.stages.test_versions import keys
print(json.dumps(keys(Path(sys.argv[1]))))
"""


def test_a_comment_in_every_file_changes_no_key(tmp_path: Path):
    packages = ("flows", "tasks", "selftrain", "sandbox")
    for package in packages:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__"))

    def keys() -> dict[str, str]:
        command = [sys.executable, "-c", KEYS, str(tmp_path / "store")]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(tmp_path)},
            capture_output=True,
            check=True,
        )
        return json.loads(done.stdout)

    before = keys()
    for package in packages:
        for path in (tmp_path / package).rglob("*.py"):
            path.write_text(path.read_text() + "# a comment\n")
    assert len(before) > 10
    assert keys() == before
