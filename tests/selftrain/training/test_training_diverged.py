"""Tests that training with NaN or infinite numbers ends at that step on all ranks, and that its result is not stored."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from selftrain.config import RuntimeConfig
from selftrain.errors import UsageError
from selftrain.launch.launch import Child
from selftrain.models.models import load_classifier, load_generator, load_tokenizer
from selftrain.records import Problem, write_records
from selftrain.stage import Context
from selftrain.stages.sft import SFT, SftSlice
from selftrain.training import common, reward, sft
from tests.command import ROOT
from tests.selftrain.training.made import problems_with_validation, reward_job, sft_job

ALONE = RuntimeConfig(processes=1)


def train(job: dict[str, Any]) -> None:
    """Carry out a job in this process."""
    kinds = {"sft": sft.train, "reward": reward.train}
    kinds[job["stage"]](Child.model_validate(job["child"]))


def untied(folder: Path, generator: Path) -> Any:
    """A generator with an output matrix of its own."""
    tokenizer = load_tokenizer(generator)
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
            max_position_embeddings=96, bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id, tie_word_embeddings=False,
        )
    )  # fmt: skip
    tokenizer.save_pretrained(folder)
    return model


@pytest.mark.parametrize(
    ("settings", "step", "what"),
    [
        (
            {"learning_rate": 1e30},
            "[23] of 12",
            "(nan|inf|beyond)",
        ),  # the first step of a warm-up moves nothing
        ({"learning_rate": 1e30, "micro_batch_size": 1}, "[23] of 12", "(nan|inf|beyond)"),
        ({"learning_rate": 1e38, "warmup_steps": 0, "epochs": 1}, "1 of 1", "weights that are not finite"),
        # Finite weights, from which no finite logits come.
        (
            {"learning_rate": 1e30, "warmup_steps": 0, "epochs": 1},
            "1 of 1",
            "weights that are not finite, or beyond",
        ),
        (
            {"learning_rate": 1e12, "warmup_steps": 0, "epochs": 1},
            "1 of 1",
            "weights that are not finite, or beyond",
        ),
    ],
    ids=["loss", "accumulated", "last-step", "last-step-finite", "last-step-large"],
)
def test_a_learning_rate_that_is_far_too_high_ends_sft(
    tmp_path: Path, generator: Path, settings: dict[str, Any], step: str, what: str
):
    job = sft_job(tmp_path / "sft", generator, ALONE, checkpoint_steps=1, **settings)
    with pytest.raises(
        UsageError,
        match=rf"stage sft diverged at step {step}: .*{what}.*, at learning rate .*e\+.*lower sft",
    ):
        train(job)
    assert not (tmp_path / "sft" / "model.safetensors").exists()
    found = common.last_checkpoint(tmp_path / "sft" / "progress" / "checkpoints")
    if found is not None:  # it is from before
        assert all(torch.isfinite(p).all() for p in load_generator(found).parameters())


def test_a_learning_rate_that_is_far_too_high_ends_reward_training(tmp_path: Path, reranker: Path):
    job = reward_job(tmp_path / "rm", reranker, ALONE, True, learning_rate=1e30)
    with pytest.raises(
        UsageError,
        match=r"stage train_reward diverged at step \d+ of \d+: .*nan.*lower reward\.learning_rate",
    ):
        train(job)


def test_start_weights_that_are_damaged_end_training_at_its_first_step(tmp_path: Path, reranker: Path):
    model = load_classifier(reranker)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = torch.inf
    model.save_pretrained(tmp_path / "damaged")
    load_tokenizer(reranker).save_pretrained(tmp_path / "damaged")
    with pytest.raises(UsageError, match=r"stage train_reward diverged at step 1 of .*loss nan"):
        train(reward_job(tmp_path / "rm", tmp_path / "damaged", ALONE, True))


def test_gradients_that_are_infinite_under_a_finite_loss_end_training(
    tmp_path: Path, generator: Path, monkeypatch: pytest.MonkeyPatch
):
    def load(*args: Any, **options: Any) -> Any:
        model = load_generator(*args, **options)
        model.model.norm.weight.register_hook(lambda gradient: gradient * torch.inf)
        return model

    monkeypatch.setattr(sft, "load_generator", load)
    with pytest.raises(
        UsageError, match=r"stage sft diverged at step 1 of 12: loss [\d.]+, grad norm (inf|nan)"
    ):
        train(sft_job(tmp_path / "sft", generator, ALONE))


def test_an_evaluation_that_is_no_number_ends_training(tmp_path: Path, generator: Path):
    """Here the row of a token is damaged that is in the evaluation's answers only."""
    model = untied(tmp_path / "base", generator)
    tokenizer = load_tokenizer(generator)
    job = sft_job(tmp_path / "sft", tmp_path / "base", ALONE, evaluation_steps=2)
    rows = problems_with_validation()
    seen = {
        i for p in rows if p.split == "sft" for i in tokenizer(p.prompt + (p.response or ""))["input_ids"]
    }
    strange = next(i for i in tokenizer("~^|")["input_ids"] if i not in seen)
    rows = [replace(p, response=tokenizer.decode([strange])) if p.split == "validation" else p for p in rows]
    write_records(tmp_path / "sft" / "problems.parquet", rows, Problem)
    with torch.no_grad():
        model.model.embed_tokens.weight[strange] = torch.nan
    model.save_pretrained(tmp_path / "base")
    with pytest.raises(UsageError, match=r"stage sft diverged at step 2 of 12: eval loss nan"):
        train(job)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "zero3"])
def test_all_ranks_end(kind: str, tmp_path: Path, generator: Path):
    file = None if kind == "ddp" else str(ROOT / "configs" / "deepspeed" / f"{kind}.json")
    runtime = RuntimeConfig(processes=2, deepspeed=file)
    job = sft_job(tmp_path / "sft", generator, runtime, learning_rate=1e30)
    config = SftSlice.model_validate(job["child"]["config"])
    build = Context(config, {"problems": tmp_path / "sft"}, tmp_path / "sft", runtime, lambda *_, **__: None)
    with pytest.raises(UsageError, match=r"stage sft diverged at step \d+ of 12: .*(nan|inf)"):
        SFT.run(build)


def test_a_reranker_whose_last_step_throws_its_weights_away_is_not_stored(tmp_path: Path, reranker: Path):
    job = reward_job(tmp_path / "rm", reranker, ALONE, True, learning_rate=1e30, warmup_steps=0, epochs=1)
    with pytest.raises(
        UsageError, match=r"stage train_reward diverged at step .*lower reward\.learning_rate"
    ):
        train(job)
    assert not (tmp_path / "rm" / "model.safetensors").exists()
