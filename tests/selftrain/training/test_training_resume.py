"""Tests that a training that is killed and resumed ends with exactly the weights of an undisturbed training."""

from pathlib import Path

import pytest
import torch

from selftrain.config import RuntimeConfig
from selftrain.models.models import load_generator, load_tokenizer
from selftrain.training import sft
from tests.selftrain.training.conftest import LORA
from tests.selftrain.training.made import carry_out, problems_with_validation, reward_job, sft_job

RUNTIME = RuntimeConfig(processes=1)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory, generator: Path, reranker: Path) -> dict:
    """Per kind of training the outcomes of an undisturbed run and of one that was killed again and again."""
    folder = tmp_path_factory.mktemp("resume")
    evaluated = {"evaluation_steps": 3, "checkpoint_steps": 5}
    dropping = LORA | {"dropout": 0.2}

    def jobs(at: Path) -> dict:
        return {
            "sft": sft_job(at / "sft", None, RUNTIME, epochs=20, checkpoint_steps=5),
            "stopping": sft_job(
                at / "stopping", generator, RUNTIME, epochs=40, learning_rate=0.1, patience=3, **evaluated
            ),
            "lora": sft_job(at / "lora", generator, RUNTIME, lora=dropping, checkpoint_steps=5, epochs=16),
            "reward": reward_job(
                at / "reward", reranker, RUNTIME, lora=dropping, holdout=0.3, patience=9, epochs=6,
                continues=True, **evaluated,
            ),
        }  # fmt: skip

    undisturbed, killed = jobs(folder / "undisturbed"), jobs(folder / "killed")
    points = [("log", 2), ("saving", 5), ("saved", 5), ("log", 7), ("saved", 10), ("log", 13)]
    killed["sft"]["kills"] = [*points, ("log", 20), ("saved", 20), ("export", 20)]
    killed["stopping"]["kills"] = [
        ("log", 2),
        ("saved", 3),
        ("saving", 5),
        ("log", 7),
        ("saved", 27),
        ("export", 0),
    ]
    killed["lora"]["kills"] = [*points, ("log", 16), ("export", 16)]
    killed["reward"]["kills"] = [("saved", 3), *points[1:5], ("export", 0)]
    names = list(undisturbed)
    found = carry_out(folder, [*undisturbed.values(), *killed.values()], RUNTIME)
    found_pairs = zip(found[: len(names)], found[len(names) :], strict=True)
    return {name: (folder, *pair) for name, pair in zip(names, found_pairs, strict=True)}


@pytest.mark.parametrize("name", ["sft", "stopping", "lora", "reward"])
def test_a_run_killed_again_and_again_ends_as_an_undisturbed_one(name: str, outcomes: dict):
    _, undisturbed, killed = outcomes[name]
    assert killed["digest"] == undisturbed["digest"]
    assert killed["metrics"] == undisturbed["metrics"]


def test_training_ends_where_nothing_gets_better_and_the_best_checkpoint_is_the_result(outcomes: dict):
    folder, undisturbed, _ = outcomes["stopping"]
    metrics = undisturbed["metrics"]
    assert metrics["stopped_early"]
    assert metrics["steps"] == metrics["best_step"] + 3 * 3 < 40
    losses = {row["step"]: row["loss"] for row in metrics["evaluations"]}
    assert list(losses) == list(range(3, metrics["steps"] + 1, 3))
    best = losses[metrics["best_step"]]
    assert best == min(losses.values())

    model = load_generator(folder / "undisturbed" / "stopping").eval()
    tokenizer = load_tokenizer(folder / "undisturbed" / "stopping")
    total, tokens = 0.0, 0
    for problem in problems_with_validation():
        if problem.split == "validation":
            row = sft.tokens(tokenizer, problem.prompt, problem.response or "", problem.language)
            labels = torch.tensor(row["labels"][1:])
            with torch.inference_mode():
                logs = model(torch.tensor([row["input_ids"]])).logits[0, :-1].log_softmax(-1)
            learnt = labels != -100
            total -= logs[learnt, labels[learnt]].sum().item()
            tokens += int(learnt.sum())
    assert total / tokens == pytest.approx(best, rel=1e-5)


def test_a_run_without_evaluation_keeps_the_last_weights_and_two_checkpoints(outcomes: dict):
    folder, undisturbed, _ = outcomes["sft"]
    assert undisturbed["metrics"]["steps"] == 20
    assert "best_step" not in undisturbed["metrics"]
    kept = sorted(p.name for p in (folder / "killed" / "sft").glob("*/checkpoints/checkpoint-*"))
    assert kept == ["checkpoint-15", "checkpoint-20"]
