"""Tests of a PPO run's result."""

import threading
from pathlib import Path

import pytest
import torch

from selftrain.cache_key import canonical_json
from selftrain.config import PPOConfig, RuntimeConfig
from selftrain.launch.launch import Child
from selftrain.models.models import load_generator, load_tokenizer
from selftrain.stages.ppo import PPOSlice
from selftrain.store.checkpoints import FOLDER, STATE, Mirror, whole
from selftrain.store.files import Files
from selftrain.store.store import PROGRESS
from selftrain.training.ppo.export import Export
from selftrain.training.ppo.state import State


@pytest.fixture
def state() -> State:
    probes = [{"step": step, "pass_rate": rate} for step, rate in ((0, 0.2), (5, 0.6), (10, 0.4))]
    return State(step=10, kl_coefficient=0.1, probes=probes)


def export(folder: Path, generator: Path) -> Export:
    config = PPOSlice(seed=1, ppo=PPOConfig(keep_best=True, probe=4), max_new_tokens=8)
    child = Child(
        config=canonical_json(config, "config"),
        inputs={"generator": generator},
        folder=folder,
        runtime=RuntimeConfig(processes=1),
        extra={},
    )
    child.private.mkdir(parents=True)
    return Export(child, config, load_generator(generator), load_tokenizer(generator), main=True)


def test_the_best_policy_is_kept_where_another_machine_goes_on(tmp_path: Path, generator: Path, state: State):
    files = Files(f"memory://{tmp_path.name}")
    here, there = export(tmp_path / "here", generator), export(tmp_path / "there", generator)
    weights = {name: weight.clone() for name, weight in here.policy.named_parameters()}
    best = {name: weight + 1 for name, weight in weights.items()}
    here.keep(0, weights)
    here.keep(5, best)
    (here.child.private / FOLDER / "step-10").mkdir(parents=True)
    (here.child.private / FOLDER / "step-10" / STATE).write_text("{}")
    one, other = (
        Mirror(files, f"{files.root}/ppo/key/progress", run.child.private / FOLDER) for run in (here, there)
    )
    one.update(threading.Event())
    other.fetch()
    assert whole(other.here).keys() == {"best-5", "step-10"}

    assert there.write(state, weights) == {"step_kept": 5}
    found = dict(load_generator(there.child.folder).named_parameters())
    assert all(torch.equal(found[name], weight) for name, weight in best.items())
    names = {path.name for path in there.child.folder.iterdir() if path.name != PROGRESS}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert not {"whole", STATE} & names


def test_without_the_best_policy_the_last_one_is_written(tmp_path: Path, generator: Path, state: State):
    run = export(tmp_path / "run", generator)
    assert run.write(state, dict(run.policy.named_parameters())) == {"step_kept": 10}
    assert load_generator(run.child.folder) is not None
