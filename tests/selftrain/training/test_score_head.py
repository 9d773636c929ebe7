"""Tests of what a reranker starts with: a score head of zeros with its own learning rate, and all or the first layers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.utils import DummyOptim

from selftrain.config import RewardConfig, RuntimeConfig
from selftrain.errors import UsageError
from selftrain.launch.launch import Child
from selftrain.models.layers import keep_layers
from selftrain.models.models import load_classifier, load_generator, load_tokenizer
from selftrain.stages.train_reward import RewardSlice
from selftrain.training import reward
from tests.selftrain.training.made import make_pairs, reward_job

RUNTIME = RuntimeConfig(processes=1)


@pytest.fixture
def loud(generator: Path, tmp_path: Path) -> Path:
    """The tiny generator with final-norm states of root mean square 7, as SmolLM2-135M has them."""
    model = load_generator(generator)
    with torch.no_grad():
        model.model.norm.weight.fill_(7.0)
    model.save_pretrained(tmp_path / "loud")
    load_tokenizer(generator).save_pretrained(tmp_path / "loud")
    return tmp_path / "loud"


def test_all_programs_have_equal_scores_before_training(loud: Path):
    model, tokenizer = load_classifier(loud, fresh_head=True).eval(), load_tokenizer(loud)
    model.config.pad_token_id = tokenizer.pad_token_id
    scores = []
    for pair in make_pairs():
        row = reward.tokens(tokenizer, pair, RewardConfig())
        for ids in (row["chosen_ids"], row["rejected_ids"]):
            with torch.inference_mode():
                out = model(torch.tensor([ids]), output_hidden_states=True)
            scores.append(out.logits.item())
    assert out.hidden_states[-1].pow(2).mean().sqrt().item() == pytest.approx(7, rel=1e-3)
    assert set(scores) == {0.0}


def trained(folder: Path, start: Path, **settings: Any) -> Any:
    """The reranker after one step on four pairs, from the generator `start`."""
    job = reward_job(folder, start, RUNTIME, epochs=0.25, warmup_steps=0, weight_decay=0.0, **settings)
    child = Child.model_validate(job["child"])
    assert RewardSlice.model_validate(child.config).continues is False
    assert reward.train(child).metrics["steps"] == 1
    return load_classifier(folder)


def test_the_heads_first_step_is_its_own_learning_rate_and_the_trunk_keeps_its_own(
    tmp_path: Path, loud: Path
):
    model = trained(tmp_path / "own", loud, learning_rate=1e-6, head_learning_rate=1e-2)
    # Adam's first step moves each weight by the learning rate, whatever its gradient; the head started at zero.
    assert torch.allclose(model.score.weight.abs(), torch.tensor(1e-2), rtol=1e-3)
    before = load_generator(loud).model.state_dict()
    moved = max(
        (weight - before[name]).abs().max().item() for name, weight in model.model.state_dict().items()
    )
    assert moved <= 1.1e-6
    model = trained(tmp_path / "same", loud, learning_rate=1e-6)
    assert torch.allclose(model.score.weight.abs(), torch.tensor(1e-6), rtol=1e-2)


def test_a_head_beside_adapters_has_its_own_learning_rate_too(tmp_path: Path, loud: Path):
    settings = {"lora": {"rank": 4}, "learning_rate": 1e-6, "head_learning_rate": 1e-2}
    model = trained(tmp_path / "lora", loud, **settings)
    assert torch.allclose(model.score.weight.abs(), torch.tensor(1e-2), rtol=1e-3)


def make_trainer(folder: Path, start: Path) -> Any:
    """A trainer whose head has its own learning rate."""
    child = Child.model_validate(reward_job(folder, start, RUNTIME, head_learning_rate=1e-2)["child"])
    config, tokenizer = RewardSlice.model_validate(child.config), load_tokenizer(start)
    examples = reward._examples(tokenizer, make_pairs(), [], config.reward)
    return reward._trainer(config, child, tokenizer, examples)


def test_the_head_has_one_group_however_often_the_optimizer_is_asked_for(tmp_path: Path, generator: Path):
    """transformers asks twice with DeepSpeed; an empty group is nothing for it to divide among ranks."""
    trainer = make_trainer(tmp_path / "rm", generator)
    for _ in range(2):
        groups = trainer.create_optimizer().param_groups
        assert [(len(group["params"]) > 0, group["lr"]) for group in groups] == [
            (True, 1e-3), (True, 1e-3), (True, 1e-2),
        ]  # fmt: skip
        assert groups[2]["params"] == [trainer.model.score.weight]


def test_an_optimizer_of_deepspeeds_own_cannot_have_two_rates(tmp_path: Path, generator: Path):
    trainer = make_trainer(tmp_path / "rm", generator)
    trainer.optimizer = DummyOptim(list(trainer.model.parameters()))
    with pytest.raises(UsageError, match=r"reward\.head_learning_rate: .*names an optimizer"):
        trainer.create_optimizer()


@pytest.mark.parametrize("settings", [{}, {"lora": {"rank": 4}}], ids=["full", "lora"])
def test_a_reranker_of_the_first_layer_has_that_layer_in_its_checkpoint(
    tmp_path: Path, generator: Path, settings: dict[str, Any]
):
    model = trained(tmp_path / "one", generator, layers=1, learning_rate=1e-6, **settings)
    assert (model.config.num_hidden_layers, len(model.model.layers)) == (1, 1)
    whole = load_generator(generator).model.eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.inference_mode():
        first = whole(ids, output_hidden_states=True).hidden_states[1]  # behind the first of two layers
        found = model.eval().model(ids).last_hidden_state
        assert torch.allclose(found, whole.norm(first), atol=1e-3)


def test_more_layers_than_there_are_is_said(generator: Path):
    model = load_classifier(generator, fresh_head=True)
    with pytest.raises(UsageError, match=r"reward\.layers is 3, and the model has 2 layers"):
        keep_layers(model, 3)


def test_a_random_head_scores_with_unit_variance_where_states_have_a_mean_square_of_one(generator: Path):
    torch.manual_seed(0)
    weight = load_classifier(generator, fresh_head=True, random_head=True).score.weight
    assert weight.std().item() == pytest.approx(17**-0.5, rel=0.4)  # 16 weights
