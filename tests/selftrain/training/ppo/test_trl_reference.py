"""Tests that this project's PPO gives the numbers of TRL 1.12's PPOTrainer to 1e-5; trl_reference.py recorded TRL's numbers.

Compared on one batch each: log-probabilities, values and the reference's log-probabilities of the same weights; KL, rewards,
advantages, value targets; policy and value loss after each of three optimizer steps; the weights after the steps.

Differences between TRL and this project ("ours"), with reasons:
- Score of a completion that ended. TRL puts it one position *after* the end token and uses the value there as that of a next
  state, although no token follows. With gamma * lambda = 1 this changes no advantage; below 1, the score is discounted once
  more and mixed with a value that estimates nothing. Ours puts it at the end token. Completions of full length: no difference.
- TRL counts that position in its value loss and in its whitening of rewards. Ours counts the completion's tokens.
- Several parts of a mini-batch: TRL averages over each part's tokens, so a token counts for more in a part of short
  completions. Ours is the mean over the mini-batch's tokens, however the mini-batch is divided.
- Several mini-batches with gradient accumulation: TRL steps once in `gradient_accumulation_steps` parts, so once an epoch,
  whatever `num_mini_batches` says. Ours steps once a mini-batch.
- TRL divides logits by temperature + 1e-7, takes old log-probabilities from generation, and does not clip gradients. Ours
  divides by the temperature, computes old log-probabilities with the network as the update runs it, so that the first ratio
  is 1, and clips gradients at `max_grad_norm`.
- For the value loss ours divides values and targets by the targets' root mean square if that is above 1 (`value_scale`); TRL
  never does.
- TRL's value model is a separate network; ours shares the policy's trunk by default. In this test both share it.
- TRL takes the first *pad* token, even a sampled one, as the end of a completion; ours takes the first end token.
"""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from selftrain.config import PPOConfig
from selftrain.training.ppo import equations as eq
from selftrain.training.ppo.model import PolicyWithValue, Sequences
from selftrain.training.ppo.score import Reward
from selftrain.training.ppo.settings import Models, TrainerSettings, accumulation_steps
from selftrain.training.ppo.trainer import Trainer
from tests.selftrain.training.ppo.tiny import reference_logprobs

STORED = json.loads(Path(__file__).with_name("trl_reference.json").read_text())
CASES = STORED["cases"]
FULL = ["full", "whitened"]
"""Cases in which every completion has the full length."""


def close(actual: Tensor, expected: Tensor) -> None:
    """To 1e-5."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


def tensor(case: dict[str, Any], name: str) -> Tensor:
    """A stored figure as float32."""
    return torch.tensor(case[name], dtype=torch.float32)


def model_of(weights: dict[str, Any]) -> LlamaForCausalLM:
    """The model with the stored weights."""
    model = LlamaForCausalLM(LlamaConfig(**STORED["architecture"]))
    model.load_state_dict({name: torch.tensor(weight) for name, weight in weights.items()}, strict=False)
    model.tie_weights()
    return model.eval()


def sequences_of(case: dict[str, Any]) -> tuple[Sequences, Tensor]:
    """The stored tokens, and the mask of the completions' own."""
    sequences = Sequences.of(case["prompts"], case["completions"], "cpu")
    return sequences, eq.completion_mask(sequences.completions, tensor(case, "logprobs").shape[1])


def experience_of(case: dict[str, Any]) -> dict[str, Tensor]:
    """What our equations make of TRL's samples, scores, log-probabilities and values."""
    settings = case["settings"]
    sequences, mask = sequences_of(case)
    ended = torch.tensor([row[-1] == settings["end"] for row in case["completions"]])
    kl = (
        eq.kl_estimate(tensor(case, "logprobs"), tensor(case, "ref_logprobs"), settings["kl_estimator"])
        * mask
    )
    scores = eq.penalised_scores(tensor(case, "scores"), ended, settings["missing_eos_penalty"])
    rewards = eq.token_rewards(kl, scores, sequences.completions, settings["kl_coef"])
    if settings["whiten_rewards"]:
        rewards = eq.whiten(rewards, mask, keep_mean=True)
    advantages, returns = eq.advantages_and_returns(
        rewards, tensor(case, "values"), mask, settings["gamma"], settings["lam"]
    )
    return {
        "kl": kl,
        "rewards": rewards,
        "returns": returns,
        "advantages": eq.whiten(advantages, mask),
    }


@pytest.mark.parametrize("name", CASES)
def test_the_batches_are_what_they_are_meant_to_be(name: str):
    case = CASES[name]
    width = tensor(case, "logprobs").shape[1]
    lengths = {len(row) for row in case["completions"]}
    assert (lengths == {width}) == (name in FULL)
    if name not in FULL:
        assert len(lengths) > 2
        assert any(row[-1] != case["settings"]["end"] for row in case["completions"])
    mask = sequences_of(case)[1]
    moved = []
    for epoch in case["epochs"]:
        rows = torch.tensor(epoch["rows"])
        change = tensor(epoch, "new_logprobs") - tensor(case, "logprobs")[rows]
        moved.append(change[mask[rows]].abs())
    assert moved[0].max() < 1e-5, "the first ratio is 1"
    assert moved[-1].min() < 0.18 < 0.25 < moved[-1].max(), "later ones are within the range and beyond it"


@pytest.mark.parametrize("name", CASES)
def test_logprobs_and_values(name: str):
    case = CASES[name]
    sequences, mask = sequences_of(case)
    policy = PolicyWithValue(model_of(STORED["policy"]), case["settings"]["temperature"])
    policy.value_head.weight.data = torch.tensor(STORED["value_head"])
    with torch.no_grad():
        logprobs, values, _ = policy(sequences)
        reference = reference_logprobs(
            model_of(STORED["reference"]), sequences, case["settings"]["temperature"]
        )
    close(logprobs, tensor(case, "logprobs")[mask])
    close(values, tensor(case, "values")[mask])
    close(reference, tensor(case, "ref_logprobs")[mask])


@pytest.mark.parametrize("name", FULL)
def test_advantages_of_full_length(name: str):
    found = experience_of(CASES[name])
    for figure in ("kl", "rewards", "returns", "advantages"):
        close(found[figure], tensor(CASES[name], figure))


def test_advantages_of_ended_completions_where_nothing_is_discounted():
    case = CASES["ended"]
    found, (_, mask) = experience_of(case), sequences_of(case)
    close(found["kl"], tensor(case, "kl") * mask)
    close(found["rewards"].sum(1), tensor(case, "rewards").sum(1))
    close(found["returns"], tensor(case, "returns") * mask)
    close(found["advantages"], tensor(case, "advantages"))


def test_with_discounts_they_differ_by_the_position_behind_the_end_alone():
    case = CASES["ended, lambda below 1"]
    settings, (sequences, mask) = case["settings"], sequences_of(case)
    assert (experience_of(case)["advantages"] - tensor(case, "advantages")).abs().max() > 0.01
    longer = eq.completion_mask((sequences.completions + 1).clamp(max=mask.shape[1]), mask.shape[1])
    advantages, returns = eq.advantages_and_returns(
        tensor(case, "rewards"), tensor(case, "values"), longer, settings["gamma"], settings["lam"]
    )
    close(returns, tensor(case, "returns"))
    close(eq.whiten(advantages * mask, mask), tensor(case, "advantages"))


@pytest.mark.parametrize("name", CASES)
def test_losses(name: str):
    case = CASES[name]
    settings, (_, mask) = case["settings"], sequences_of(case)
    for epoch in case["epochs"]:
        rows = torch.tensor(epoch["rows"])
        own = mask[rows]
        policy_loss, _ = eq.clipped_policy_loss(
            tensor(epoch, "new_logprobs"),
            tensor(case, "logprobs")[rows],
            tensor(case, "advantages")[rows],
            settings["cliprange"],
        )
        value_loss = eq.clipped_value_loss(
            tensor(epoch, "vpred"),
            tensor(case, "values")[rows],
            tensor(case, "returns")[rows],
            settings["cliprange_value"],
        )
        close(eq.masked_mean(policy_loss, own), tensor(epoch, "pg_loss"))
        close(value_loss[own], tensor(epoch, "vf_loss_max")[own] / 2)
        if name in FULL:
            whole = eq.masked_mean(policy_loss, own) + settings["vf_coef"] * eq.masked_mean(value_loss, own)
            close(eq.masked_mean(value_loss, own), tensor(epoch, "vf_loss"))
            close(whole, tensor(epoch, "loss"))


@pytest.fixture
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_one_thread")
@pytest.mark.parametrize("micro_batch", [8, 3])
def test_a_whole_update(micro_batch: int):
    """Three optimizer steps from TRL's samples: our trainer's losses, and its weights after them."""
    case = CASES["full"]
    settings, (sequences, mask) = case["settings"], sequences_of(case)
    rows = len(case["prompts"])
    config = PPOConfig(
        rollout_batch=rows,
        mini_batch=rows,
        micro_batch=micro_batch,
        epochs=len(case["epochs"]),
        learning_rate=settings["learning_rate"],
        temperature=settings["temperature"],
        clip=settings["cliprange"],
        value_clip=settings["cliprange_value"],
        value_coefficient=settings["vf_coef"],
        max_grad_norm=1e6,
    )
    trainer = Trainer(
        TrainerSettings(config, 0, mask.shape[1], (1,)),
        Models(model_of(STORED["policy"]), model_of(STORED["reference"])),
        Reward(lambda prompts, completions: torch.zeros(len(completions))),
        case["prompts"],  # samples of its own are drawn, and not used
        Accelerator(cpu=True, gradient_accumulation_steps=accumulation_steps(config, 1)),
    )
    trainer.module.value_head.weight.data = torch.tensor(STORED["value_head"])
    trainer.module.value_head.bias.requires_grad_(False)  # TRL's head has none
    found = experience_of(case)
    assert eq.value_scale(found["returns"], mask) == 1
    experience = dataclasses.replace(
        trainer.experience(),
        sequences=sequences,
        mask=mask,
        logprobs=tensor(case, "logprobs"),
        values=tensor(case, "values"),
        advantages=found["advantages"],
        returns=found["returns"],
    )
    losses = trainer.update(experience)
    for name, theirs in (("policy_loss", "pg_loss"), ("value_loss", "vf_loss")):
        mean = sum(one[theirs] for one in case["epochs"]) / len(case["epochs"])
        assert losses[name] == pytest.approx(mean, abs=1e-5)
    trained = trainer.policy.state_dict()
    for name, weight in case["trained"].items():
        close(trained[name], torch.tensor(weight))
    close(trainer.module.value_head.weight.data, torch.tensor(case["trained_value_head"]))
