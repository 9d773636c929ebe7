"""Tests of which policy the policy step starts from, and of what enters its key."""

from pathlib import Path

import pytest

from flows.method import graph
from selftrain.config import PPOConfig, RunConfig
from selftrain.stage import ArtifactRef
from selftrain.store.store import Store
from tasks.run import Run, Step
from tasks.stages import ppo

PROBLEMS, GENERATOR, RERANKER, BEFORE = (
    ArtifactRef(stage, "0" * 32) for stage in ("prepare", "sft", "train_reward", "ppo")
)


def planned(folder: Path, before: ArtifactRef | None = None, **settings: object) -> Step:
    """What the task would build."""
    run = Run(RunConfig(ppo=PPOConfig.model_validate(settings)), Store(str(folder / "store")))
    ppo(run, PROBLEMS, GENERATOR, RERANKER, 1, before)
    return run.steps["ppo-1"]


def test_the_start_is_the_sft_policy_or_the_policy_before(tmp_path: Path):
    found = {
        "first": planned(tmp_path),
        "later": planned(tmp_path, BEFORE),
        "first of previous": planned(tmp_path, start="previous"),
        "later of previous": planned(tmp_path, BEFORE, start="previous"),
    }
    starts = {name: step.inputs.get("start") for name, step in found.items()}
    assert starts == {"first": None, "later": None, "first of previous": None, "later of previous": BEFORE}
    assert all(step.inputs["generator"] == GENERATOR for step in found.values()), "the reference"
    assert len({step.ref for step in found.values()}) == 2, "round 1 is the same with both"


def test_each_round_goes_on_from_the_one_before():
    config = RunConfig.model_validate({"rounds": 3, "ppo": {"start": "previous"}})
    steps = {step.name: step for step in graph(config)}
    assert "start" not in steps["ppo-1"].inputs
    for round_ in (2, 3):
        assert steps[f"ppo-{round_}"].inputs["start"] == steps[f"ppo-{round_ - 1}"].ref
        assert steps[f"ppo-{round_}"].inputs["generator"] == steps["sft"].ref


@pytest.mark.parametrize(
    ("algorithm", "without_effect", "with_effect"),
    [
        ("ppo", {"group": 4, "scale_rewards": "none"}, {"value_clip": 0.3}),
        (
            "grpo",
            {"value_model": "separate", "gae_lambda": 0.5, "whiten_rewards": True},
            {"scale_rewards": "none"},
        ),
        ("rloo", {"scale_rewards": "none", "value_coefficient": 0.5}, {"group": 4}),
    ],
)
def test_only_settings_that_have_an_effect_are_in_the_key(
    tmp_path: Path, algorithm: str, without_effect: dict[str, object], with_effect: dict[str, object]
):
    plain = planned(tmp_path, algorithm=algorithm).ref
    assert planned(tmp_path, algorithm=algorithm, **without_effect).ref == plain
    assert planned(tmp_path, algorithm=algorithm, **with_effect).ref != plain
