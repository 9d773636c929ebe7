"""Tests of which stages a run has, by its config."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from flows.champion import _measured
from flows.method import graph, method
from selftrain.config import RunConfig
from selftrain.errors import UsageError
from selftrain.stage import Outcome, Step
from selftrain.store.store import Store
from tasks.run import Run


def steps(rounds: int = 2, **settings: Any) -> dict[str, Step]:
    """The stages by name, without those of the evaluation of a pool."""
    config = RunConfig.model_validate({"rounds": rounds, **settings})
    return {step.name: step for step in graph(config)}


def trained(**settings: Any) -> list[str]:
    """The policy steps that are carried out."""
    return [name for name in steps(**settings) if name.startswith("ppo")]


def test_a_policy_that_nothing_needs_is_not_trained():
    sft = {"pools": ["sft"]}
    assert trained(rounds=3) == ["ppo-1", "ppo-2", "ppo-3"]
    assert trained(rounds=3, evaluate=sft) == ["ppo-1", "ppo-2"], "the last one is mined by no round"
    assert trained(rounds=3, evaluate=sft, mine={"pools": "newest"}) == ["ppo-1", "ppo-2"]
    assert trained(rounds=1, evaluate=sft) == []
    for pools in ("sft", "resampled"):
        assert trained(rounds=3, evaluate=sft, mine={"pools": pools}) == []
        some = {"pools": ["sft", "ppo-2"]}
        assert trained(rounds=3, evaluate=some, mine={"pools": pools}) == ["ppo-2"]
        start = {"start": "previous"}
        assert trained(rounds=3, evaluate=some, mine={"pools": pools}, ppo=start) == ["ppo-1", "ppo-2"]


def test_only_the_named_pools_are_evaluated_and_nothing_before_changes():
    every, some = steps(), steps(evaluate={"pools": ["sft", "ppo-1"]})
    assert every["evaluate"].config.pools == ("sft", "ppo-1", "ppo-2")
    assert some["evaluate"].config.pools == ("sft", "ppo-1")
    assert "sample-ppo-2-evaluation" not in some
    assert all(
        every[name].ref == step.ref for name, step in some.items() if name not in ("evaluate", "report")
    )


@pytest.mark.parametrize(
    ("pools", "said"),
    [(["ppo-1"], "sft is missing"), (["sft", "ppo-3"], "no pool 'ppo-3'; there are: sft, ppo-1")],
)
def test_unknown_pools_are_refused(pools: list[str], said: str):
    with pytest.raises(ValidationError, match=said):
        RunConfig.model_validate({"rounds": 2, "evaluate": {"pools": pools}})


def test_a_second_sample_of_the_sft_policy_takes_the_place_of_the_policies_samples():
    plain, again = steps(rounds=3), steps(rounds=3, mine={"pools": "resampled"})
    assert again["mine-3"].config.pools == ("sft", "sft-2", "sft-3")
    assert "sample-ppo-1-rl" not in again
    first, second, third = (again[f"sample-{name}-rl"] for name in ("sft", "sft-2", "sft-3"))
    assert len({first.config.seed, second.config.seed, third.config.seed}) == 3
    assert {step.inputs["generator"] for step in (first, second, third)} == {again["sft"].ref}
    same = [step.config.model_copy(update={"seed": 0}) for step in (first, second, third)]
    assert same[0] == same[1] == same[2], "as many, at the same temperature"
    for name in ("sample-sft-rl", "mine-1", "rm-1"):
        assert again[name].ref == plain[name].ref
    assert again["mine-2"].ref != plain["mine-2"].ref


def test_further_samples_have_a_temperature_of_their_own():
    warm = steps(mine={"pools": "resampled", "resample_temperature": 1.3}, sample={"temperature": 0.7})
    assert warm["sample-sft-2-rl"].config.sample.temperature == 1.3
    assert warm["sample-sft-rl"].config.sample.temperature == 0.7
    assert warm["sample-sft-evaluation"].config.sample.temperature == 0.7
    plain = steps(sample={"temperature": 0.7})
    assert warm["mine-1"].ref == plain["mine-1"].ref


def test_a_bound_of_pairs_has_another_key_only_where_it_is_set():
    plain, bounded = steps(), steps(mine={"max_pairs": 10})
    assert [bounded[f"mine-{round}"].config.thins for round in (1, 2)] == [False, True]
    assert not plain["mine-2"].config.thins


def test_the_policy_step_reads_verdicts_only_to_choose_problems():
    plain, mixed = steps(), steps(ppo={"problems": "mixed"})
    for round in (1, 2):
        assert "executions" not in plain[f"ppo-{round}"].inputs
        assert mixed[f"ppo-{round}"].inputs["executions"] == mixed["execute-sft-rl"].ref
    assert plain["rm-1"].ref == mixed["rm-1"].ref
    assert plain["ppo-1"].ref != mixed["ppo-1"].ref


def test_mining_depends_on_the_sandbox_only_where_assertions_run():
    plain, run = steps(), steps(mine={"assertions": True})
    assert plain["mine-1"].config.toolchain is None
    for round in (1, 2):
        assert run[f"mine-{round}"].config.toolchain == {"": ""}
        assert run[f"mine-{round}"].config.execute == run["execute-sft-rl"].config.execute
    assert run["sample-sft-rl"].ref == plain["sample-sft-rl"].ref


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"ppo": {"mini_batch": 100}}, "ppo.rollout_batch 256 is not a multiple of ppo.mini_batch 100"),
        ({"ppo": {"probe": 3}}, "ppo.probe 3 cannot be spread evenly over 2 training processes"),
        ({"sft": {"batch_size": 3}}, "sft.batch_size 3 cannot be split evenly on 2 processes"),
        ({"reward": {"micro_batch_size": 24}}, "reward.batch_size 64 cannot be split evenly on 2 processes"),
    ],
)
def test_batches_that_a_later_stage_would_refuse_are_refused_before_the_first(
    settings: dict[str, Any], said: str, tmp_path: Path
):
    config = RunConfig.model_validate(settings)
    with pytest.raises(UsageError, match=said):
        method(Run(config, Store(str(tmp_path))))
    assert steps(**settings), "a plan tells it as a warning"


def test_batches_of_a_stage_that_is_not_run_do_not_matter(tmp_path: Path):
    settings = {"rounds": 1, "evaluate": {"pools": ["sft"]}, "ppo": {"mini_batch": 100}}
    run = Run(RunConfig.model_validate(settings), Store(str(tmp_path)), toolchain={"py": "", "sh": ""})
    method(run)
    assert "ppo-1" not in run.steps


@pytest.mark.parametrize("pools", [None, ["sft"]])
def test_a_decision_on_a_challenger_has_figures_where_its_policy_was_not_trained(
    pools: list[str] | None, tmp_path: Path
):
    config = RunConfig.model_validate({"rounds": 2, "evaluate": {"pools": pools}})
    run = Run(config, Store(str(tmp_path)), toolchain={"py": "", "sh": ""})
    method(run)
    assert ("ppo-2" in run.steps) == (pools is None)
    made = Outcome("", {"verdicts": {"passed": 1, "wrong_answer": 3, "sandbox_error": 1}})
    for step in run.steps.values():
        run.store.build(step.ref, {"name": step.name}, lambda folder: made)
    last = [name for name in ("rm-2", "ppo-2") if name in run.steps]
    manifests = [run.store.manifest(run.steps[name].ref) or {} for name in last]
    executed = sum(step.stage.name == "execute" for step in run.steps.values())
    assert _measured(run, 2) == {
        "pass_rate": 0.2,
        "sandbox_errors": executed,
        "training_seconds": sum(manifest["seconds"] for manifest in manifests),
    }
