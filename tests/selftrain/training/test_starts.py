"""Tests of what training starts from: a pretrained model without any training, and random weights in its architecture."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from selftrain.config import ModelConfig, RunConfig, RuntimeConfig, SftConfig
from selftrain.launch.launch import Child
from selftrain.models.models import load_generator, load_tokenizer
from selftrain.models.weights import base_digest
from selftrain.plan.learning_rates import too_high
from selftrain.stages.sft import SftSlice
from selftrain.stages.train_reward import RewardSlice
from selftrain.training import reward, sft
from tests.selftrain.training.made import reward_job


def sft_slice(base: Path, epochs: float = 1, **model: Any) -> SftSlice:
    """The slice of a pretrained model in the folder `base`."""
    config = ModelConfig(base=str(base), **model)
    return SftSlice(seed=1, model=config, base_digest=base_digest(config), sft=SftConfig(epochs=epochs))


def shapes(model: Any) -> dict[str, torch.Size]:
    return {name: weight.shape for name, weight in model.state_dict().items()}


def farthest(one: Any, other: Any) -> float:
    """The largest difference between weights of the same name."""
    weights = other.state_dict()
    return max((weight - weights[name]).abs().max().item() for name, weight in one.state_dict().items())


def test_without_an_epoch_the_generator_is_the_pretrained_model(
    tmp_path: Path, problems: Path, generator: Path
):
    child = Child(
        config=sft_slice(generator, epochs=0).model_dump(),
        inputs={"problems": problems},
        folder=tmp_path,
        runtime=RuntimeConfig(processes=1).model_dump(),
        extra={},
    )
    outcome = sft.train(child)
    assert farthest(load_generator(tmp_path), load_generator(generator)) == 0.0
    assert load_tokenizer(tmp_path).get_vocab() == load_tokenizer(generator).get_vocab()
    assert outcome.metrics["examples"] == 0


def test_a_random_generator_has_the_architecture_and_none_of_the_weights(generator: Path):
    tokenizer, base = load_tokenizer(generator), load_generator(generator)
    models = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        models.append(sft._model(sft_slice(generator, random=True), tokenizer))
    assert shapes(models[0]) == shapes(base)
    assert farthest(models[0], models[1]) == 0.0 < farthest(models[0], models[2])
    assert models[0].model.embed_tokens.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert farthest(models[0], base) > 0.1


def test_a_random_reranker_has_none_of_the_generators_weights(tmp_path: Path, generator: Path):
    child = Child.model_validate(
        reward_job(tmp_path / "rm", generator, RuntimeConfig(), random=True)["child"]
    )
    config, tokenizer = RewardSlice.model_validate(child.config), load_tokenizer(generator)
    torch.manual_seed(1)
    model = reward._model(config, child, tokenizer)
    base = load_generator(generator)
    assert shapes(model.model) == shapes(base.model)
    assert farthest(model.model, base.model) > 0.1
    assert model.score.out_features == 1
    assert model.config.pad_token_id == tokenizer.pad_token_id


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"sft": {"epochs": 0}}, "sft.epochs is 0, and the model has random weights"),
        ({"model": {"base": "x", "random": True}, "sft": {"epochs": 0}}, "sft.epochs is 0"),
        ({"model": {"random": True}}, "model.random takes the architecture of model.base, which is null"),
        (
            {"model": {"base": "x", "random": True}, "sft": {"lora": {}}},
            "pretrained weights, and model.random is set",
        ),
        ({"sft": {"epochs": -1}}, "sft.epochs"),
    ],
)
def test_starts_that_make_no_sense_are_refused(settings: dict[str, Any], said: str):
    runtime = {"runtime": {"backend": "docker"}}
    with pytest.raises(ValidationError, match=said):
        RunConfig.model_validate(settings | runtime)


def test_high_rates_are_those_of_random_weights():
    runtime = {"runtime": {"backend": "docker"}}
    loud = RunConfig.model_validate({"model": {"base": "x"}} | runtime)
    assert [line.split()[0] for line in too_high(loud)] == [
        "sft.learning_rate", "reward.learning_rate", "ppo.learning_rate",
    ]  # fmt: skip
    assert not list(too_high(RunConfig.model_validate({"model": {"base": "x", "random": True}} | runtime)))
