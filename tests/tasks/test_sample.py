"""Tests of what the stage `sample` asks a server for."""

from pathlib import Path

import pytest

from selftrain.config import RunConfig
from selftrain.errors import UsageError
from selftrain.stage import ArtifactRef
from selftrain.store.store import Store
from tasks.run import Run
from tasks.stages import sample

PROBLEMS, GENERATOR = (ArtifactRef(stage, "0" * 32) for stage in ("prepare", "sft"))


def planned(folder: Path, name: str) -> Run:
    """A run with engine openai."""
    settings = {"engine": "openai", "base_url": "http://127.0.0.1:1/v1", "served_model": name}
    return Run(RunConfig.model_validate({"sample": settings}), Store(str(folder / "store")))


def test_each_policy_is_a_model_of_its_own(tmp_path: Path):
    run = planned(tmp_path, "qwen-{pool}")
    for pool in ("sft", "ppo-1"):
        sample(run, PROBLEMS, GENERATOR, pool)
    assert [step.config.sample.served_model for step in run.steps.values()] == ["qwen-sft", "qwen-ppo-1"]


def test_one_model_is_not_taken_for_two_policies(tmp_path: Path):
    run = planned(tmp_path, "qwen")
    sample(run, PROBLEMS, GENERATOR, "sft")
    with pytest.raises(
        UsageError,
        match=r"served_model qwen is one model, and pool ppo-1 is of another policy .*qwen-\{pool\}",
    ):
        sample(run, PROBLEMS, GENERATOR, "ppo-1")
