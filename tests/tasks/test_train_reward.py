"""Tests of which model a reranker starts from, and of what enters its key."""

from pathlib import Path

import pytest

from selftrain.config import RewardConfig, RunConfig
from selftrain.errors import UsageError
from selftrain.stage import ArtifactRef
from selftrain.store.store import Store
from tasks.run import Run, Step
from tasks.stages import train_reward

GENERATOR, PAIRS, BEFORE = (ArtifactRef(stage, "0" * 32) for stage in ("sft", "mine", "train_reward"))


def planned(folder: Path, before: ArtifactRef | None = None, **settings: object) -> Step:
    """What the task would build."""
    run = Run(RunConfig(reward=RewardConfig.model_validate(settings)), Store(str(folder / "store")))
    train_reward(run, GENERATOR, PAIRS, 1, before)
    return run.steps["rm-1"]


def make_base(folder: Path, content: str = "{}") -> str:
    """A folder with a file of a model in it."""
    folder.mkdir()
    (folder / "config.json").write_text(content)
    return str(folder)


def test_the_start_is_the_generator_the_base_or_the_reranker_before(tmp_path: Path):
    base = make_base(tmp_path / "base")
    found = {
        "generator": planned(tmp_path),
        "again": planned(tmp_path, BEFORE),
        "later": planned(tmp_path, BEFORE, later_epochs=1),
        "base": planned(tmp_path, base=base),
        "base again": planned(tmp_path, BEFORE, base=base),
        "base later": planned(tmp_path, BEFORE, base=base, later_epochs=1),
    }
    starts = {name: step.inputs.get("start") for name, step in found.items()}
    assert starts == {
        "generator": GENERATOR, "again": GENERATOR, "later": BEFORE,
        "base": None, "base again": None, "base later": BEFORE,
    }  # fmt: skip
    assert [name for name, step in found.items() if step.config.continues] == ["later", "base later"]
    assert [name for name, step in found.items() if step.config.base_digest] == ["base", "base again"]
    assert len({step.ref for step in found.values()}) == 3, "a base that is not started from is in no key"


def test_the_base_is_in_the_key_by_its_content(tmp_path: Path):
    one, same = (planned(tmp_path, base=make_base(tmp_path / name)).ref for name in ("one", "same"))
    other = planned(tmp_path, base=make_base(tmp_path / "other", '{"a": 1}')).ref
    assert one == same != other


def test_a_base_that_holds_no_model_is_told_before_anything_runs(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"reward\.base: .*empty holds no model"):
        planned(tmp_path, base=str(tmp_path / "empty"))


def test_later_rounds_have_half_the_rate_and_none_of_the_heads(tmp_path: Path):
    rates = {"learning_rate": 2e-4, "head_learning_rate": 2e-3, "later_epochs": 1}
    first, later = planned(tmp_path, **rates), planned(tmp_path, BEFORE, **rates)
    assert (first.config.reward.learning_rate, first.config.reward.head_learning_rate) == (2e-4, 2e-3)
    assert (later.config.reward.learning_rate, later.config.reward.head_learning_rate) == (1e-4, None)
    named = planned(tmp_path, BEFORE, **rates, later_learning_rate=3e-5)
    assert named.config.reward.learning_rate == 3e-5


def test_only_a_generator_that_was_never_pretrained_gets_a_random_head(tmp_path: Path):
    assert planned(tmp_path).config.tiny
    assert not planned(tmp_path, BEFORE, later_epochs=1).config.tiny
    assert not planned(tmp_path, base=make_base(tmp_path / "base")).config.tiny


def test_random_weights_are_those_of_rounds_that_do_not_go_on_from_the_one_before(tmp_path: Path):
    base = make_base(tmp_path / "base")
    first, of_base = planned(tmp_path, random=True), planned(tmp_path, random=True, base=base)
    assert first.config.tiny, "its head is random too"
    assert of_base.config.tiny
    assert first.inputs["start"] == GENERATOR
    later = planned(tmp_path, BEFORE, random=True, later_epochs=1)
    assert later.ref == planned(tmp_path, BEFORE, later_epochs=1).ref
