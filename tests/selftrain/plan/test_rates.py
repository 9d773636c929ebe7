"""Tests of the rates that a plan reads from finished runs, with manifests written by hand."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flows.method import graph, method
from selftrain.config import BankConfig, ModelConfig, RunConfig, RuntimeConfig
from selftrain.plan.corpus import corpus_of
from selftrain.plan.estimate import Planner
from selftrain.plan.plan import Hardware, make_plan
from selftrain.plan.rates import measured, shapes, with_rates
from selftrain.plan.speed import stated_speed, where
from selftrain.stage import ArtifactRef, Outcome
from selftrain.store.store import Store
from tasks.run import Run, Step

CONFIG = RunConfig(
    name="tiny",
    rounds=1,
    problems=BankConfig(languages=("py",), sizes={"sft": 30, "rl": 6, "validation": 3, "test": 4}),
    model=ModelConfig(vocabulary=300, hidden_size=16, layers=2, heads=2),
    sft={"batch_size": 8, "micro_batch_size": 4},
    sample={"rl": 4, "max_new_tokens": 16},
    reward={"batch_size": 4, "micro_batch_size": 4},
    ppo={"steps": 4, "rollout_batch": 8, "mini_batch": 4},
    runtime=RuntimeConfig(processes=1, workers=2, backend="process"),
)
STATED = stated_speed(1.0, 0.5, 0.1)
METRICS: dict[str, Any] = {
    "train_reward": {"pairs": 12, "steps": 3},
    "sample": {"candidates": 24, "tokens": 24 * 16},
    "ppo": {
        "curve": [{"tokens": 8 * 16}] * 4,
        "seconds": {"rollout": 3.0, "score": 0.25, "reference": 0.25, "update": 0.5},
    },
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def planner(config: RunConfig = CONFIG) -> Planner:
    corpus = corpus_of(config)
    return Planner(config, graph(config), *shapes(config, corpus.vocabulary), corpus, STATED)


def finish(
    store: Store, config: RunConfig, finished: float, paces: dict[str, dict[str, Any]], **there: Any
) -> None:
    """Store a finished run of `config`, with the pace of each stage whose name `paces` has; 20 s each. `there`: where it ran."""
    stages = {}
    for node in graph(config):
        ref = ArtifactRef(node.stage.name, f"{node.name}-{finished:g}")
        record: dict[str, Any] = {"inputs": {name: str(made) for name, made in node.inputs.items()}}
        if node.name in paces:
            record["pace"] = where(config) | there | paces[node.name]
        metrics = METRICS.get(node.stage.name, {})
        store.build(ref, record, lambda folder, metrics=metrics: Outcome("", metrics))  # type: ignore[misc]
        _change(store, ref, seconds=20.0)
        stages[node.name] = {"stage": ref.stage, "key": ref.key}
    record = {
        "name": config.name,
        "finished": finished,
        "config": config.model_dump(mode="json"),
        "stages": stages,
    }
    store.record_run(config.name, f"{finished:g}", record)


def _change(store: Store, ref: ArtifactRef, **values: Any) -> None:
    """Change values of a manifest."""
    path = Path(store.root, ref.stage, ref.key, "manifest.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def pace(first: float, last: float, total: float, seconds: float, unit: str = "steps") -> dict[str, Any]:
    return {"unit": unit, "from": first, "to": last, "total": total, "seconds": seconds}


def test_a_rate_is_the_planned_work_over_the_seconds_that_it_took(store: Store):
    paces = {
        "sft": pace(1, 4, 8, 6.0),
        "rm-1": pace(1, 3, 3, 2.0),
        "ppo-1": pace(2, 4, 4, 8.0),
        "sample-sft-rl": pace(1, 2, 2, 4.0, "shards"),
        "execute-sft-rl": pace(6, 24, 24, 3.0, "programs"),
        "evaluate": pace(1, 3, 3, 1.0, "rerankings"),
    }
    finish(store, CONFIG, 100.0, paces)
    own = planner()
    long = replace(own, corpus=own.corpus.as_long(16))
    steps, sampled = ({step.name: step for step in one.steps()} for one in (own, long))
    speed = with_rates(own, store, graph)
    assert speed.rates["sft"] == pytest.approx(steps["sft"].flops["sft"] * 3 / 8 / 6)
    learned = replace(own, pairs=12)
    reward = next(step for step in learned.steps() if step.name == "rm-1").flops["train_reward"]
    assert speed.rates["train_reward"] == pytest.approx(reward * 2 / 3 / 2)
    assert speed.rates["sample"] == pytest.approx(sampled["sample-sft-rl"].flops["sample"] / 2 / 4)
    assert speed.rates["score"] == pytest.approx(steps["evaluate"].flops["score"] * 2 / 3 / 1)
    # Three quarters of PPO's time are its rollouts.
    assert speed.rates["rollout"] == pytest.approx(sampled["ppo-1"].flops["rollout"] * 2 / 4 / 6)
    assert speed.rates["ppo"] == pytest.approx(sampled["ppo-1"].flops["ppo"] * 2 / 4 / 2)
    # 20 seconds less those of four steps.
    assert speed.starts["sft"] == pytest.approx(20 - 4 * 2)
    # 24 programs of 4 ms, 0.7 of them distinct; two workers.
    assert 1 / speed.sandbox == pytest.approx(24 * 0.004 * 0.7 * 18 / 24 / 2 / 3)
    assert not any("assumed" in line for line in speed.said)
    assert any(line.startswith("sft: ") and "as in tiny of 1970-01-0" in line for line in speed.said)


def test_what_no_run_shows_is_assumed_and_said_to_be(store: Store):
    finish(store, CONFIG, 100.0, {"sft": pace(1, 4, 8, 6.0), "rm-1": pace(1, 1, 1, 0.0)})
    speed = with_rates(planner(), store, graph)
    assert speed.rates["sft"] != STATED.rates["sft"]
    assert {kind: speed.rates[kind] for kind in ("train_reward", "ppo", "score", "sample")} == {
        kind: STATED.rates[kind] for kind in ("train_reward", "ppo", "score", "sample")
    }
    assert speed.said[-1].startswith("train_reward, ppo, score, rollout, sample: no finished run in")
    assert "assumed 1 TFLOP/s a process at a utilisation of 0.5" in speed.said[-1]
    assert speed.sandbox == 1.0


def test_this_machine_comes_before_another_and_the_newest_before_the_older(store: Store):
    finish(store, CONFIG, 100.0, {"sft": pace(1, 4, 8, 6.0)})
    finish(store, CONFIG, 200.0, {"sft": pace(1, 4, 8, 3.0)})
    finish(store, CONFIG, 300.0, {"sft": pace(1, 4, 8, 1.5)}, machine="another")
    own = planner()
    work = next(step for step in own.steps() if step.name == "sft").flops["sft"]
    assert with_rates(own, store, graph).rates["sft"] == pytest.approx(work * 3 / 8 / 3)
    assert len([*measured(own, store, graph)]) == 3


def test_one_run_beside_other_work_does_not_set_the_rate(store: Store):
    own = planner()
    work = next(step for step in own.steps() if step.name == "sft").flops["sft"] * 3 / 8
    took = []
    for finished, seconds, rate in (
        (100.0, 3.0, 3.0),
        (200.0, 30.0, 3.0),
        (300.0, 4.0, 4.0),
        (400.0, 40.0, 30.0),
    ):
        finish(store, CONFIG, finished, {"sft": pace(1, 4, 8, seconds)})
        took.append((with_rates(own, store, graph).rates["sft"], pytest.approx(work / rate)))
    assert [ours for ours, _ in took] == [expected for _, expected in took]


@pytest.mark.parametrize(
    "other",
    [
        {"model": ModelConfig(vocabulary=300, hidden_size=64, layers=4, heads=2)},
        {"runtime": CONFIG.runtime.model_copy(update={"device": "cuda"})},
    ],
)
def test_models_of_another_size_and_other_devices_say_nothing(store: Store, other: dict[str, Any]):
    finish(store, CONFIG.model_copy(update=other), 100.0, {"sft": pace(1, 4, 8, 6.0)})
    assert [*measured(planner(), store, graph)] == []


def test_other_backends_machines_that_shared_and_runs_of_other_versions_say_nothing(store: Store):
    finish(store, CONFIG, 100.0, {"execute-sft-rl": pace(6, 24, 24, 3.0, "programs")})
    finish(store, CONFIG, 200.0, {"sample-sft-rl": pace(1, 2, 2, 3.0, "parts")})
    store.record_run("old", "300", {"name": "old", "finished": 300.0, "stages": {}})
    store.record_run("new", "400", {"name": "new", "finished": 400.0, "stages": {}, "config": {"unknown": 1}})
    own = planner()
    assert [rate.kind for rate in measured(own, store, graph)] == ["execute"]
    docker = CONFIG.runtime.model_copy(update={"backend": "docker"})
    assert [*measured(planner(CONFIG.model_copy(update={"runtime": docker})), store, graph)] == []


def test_a_plan_without_a_store_that_can_be_read_says_so(tmp_path: Path):
    store = Store(str(tmp_path / "store"))
    plan = make_plan(CONFIG, Hardware(), graph, store=lambda: store)
    assert "no rates of finished runs in" in plan.speed.said[0]
    assert not (tmp_path / "store").exists(), "nothing is written"
    path = tmp_path / "store" / "runs" / "tiny" / "1.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    plan = make_plan(CONFIG, Hardware(), graph, store=lambda: store)
    assert "is damaged" in plan.speed.said[-1]


def test_a_finished_run_tells_its_rates(tmp_path: Path):
    """What a run itself leaves in the store is enough."""

    class Short(Run):
        def execute(self, step: Step, there: bool) -> None:
            if step.stage.name in ("prepare", "sft"):
                self.build(step)

    config = CONFIG.model_copy(update={"store": str(tmp_path / "store")})
    run = Short(config, Store(config.store), toolchain={"py": "none"})
    method(run)
    run.record(finished=True)
    began = time.monotonic()
    plan = make_plan(config, Hardware(), graph, store=lambda: run.store)
    assert time.monotonic() - began < 30
    manifest = run.store.manifest(run.steps["sft"].ref) or {}
    assert (manifest["pace"]["unit"], manifest["pace"]["total"]) == ("steps", manifest["metrics"]["steps"])
    step = next(step for step in plan.steps if step.name == "sft")
    assert step.seconds == pytest.approx(manifest["seconds"], rel=0.2)
    assert plan.speed.said[0].startswith("sft: ")


def test_a_stage_without_a_model_has_no_rate(store: Store):
    config = CONFIG.model_copy(update={"evaluate": CONFIG.evaluate.model_copy(update={"agreement": 4})})
    finish(store, config, 100.0, {"agree-sft": pace(2, 12, 12, 5.0, "programs")})
    own = planner(config)
    assert [*measured(own, store, graph)] == []
    steps = {step.name: step for step in own.steps()}
    # 3 validation and 4 test problems x 16 samples; the stage `execute` also runs a greedy program for each.
    assert steps["agree-sft"].sandbox_seconds == pytest.approx(own.sandbox({"py": 7 * 16}))
