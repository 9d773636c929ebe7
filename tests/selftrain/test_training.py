"""SFT and reward training: what the loss is on, the order of batches, and resuming from a checkpoint."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import logsigmoid

from selftrain.config import ModelConfig, RewardConfig, RuntimeConfig, SftConfig
from selftrain.errors import ChildFailed, DataError, UsageError
from selftrain.launch import Child
from selftrain.models import load_classifier, load_generator, load_tokenizer
from selftrain.records import Pair, Problem, write_records
from selftrain.stage import Build, Outcome
from selftrain.stages.sft import SFT, SftSlice
from selftrain.stages.train_reward import TRAIN_REWARD, RewardSlice
from selftrain.store import PROGRESS
from selftrain.training import common, reward, sft
from tests.selftrain.conftest import TINY, make_problems

STILL = {"learning_rate": 1e-12, "warmup_steps": 0, "weight_decay": 0.0}
"""Training that moves no weight, so that the mean loss of ten steps is the loss of one."""


# Batches


def test_every_epoch_holds_every_row_once():
    lengths = [7, 3, 9, 1, 5, 3, 8, 2]
    order = common.bucketed_order(lengths, epochs=3, batch_size=4, seed=1)
    assert len(order) == 24
    for epoch in range(3):
        assert sorted(order[8 * epoch : 8 * epoch + 8]) == list(range(8))


def test_a_batch_holds_rows_of_similar_length():
    lengths = list(range(40))
    order = common.bucketed_order(lengths, epochs=1, batch_size=4, seed=1)
    batches = [order[at : at + 4] for at in range(0, 40, 4)]
    assert sorted(map(sorted, batches)) == [list(range(at, at + 4)) for at in range(0, 40, 4)]
    assert batches != sorted(batches), "the batches themselves are in random order"


def test_the_order_depends_on_the_seed_only():
    lengths = [length % 13 for length in range(50)]
    assert common.bucketed_order(lengths, 2, 8, seed=1) == common.bucketed_order(lengths, 2, 8, seed=1)
    assert common.bucketed_order(lengths, 2, 8, seed=1) != common.bucketed_order(lengths, 2, 8, seed=2)


@pytest.mark.parametrize(
    ("rows", "epochs", "batch", "expected"), [(10, 1, 4, 8), (10, 0.5, 4, 4), (3, 1, 8, 8), (1, 5, 2, 4)]
)
def test_only_whole_batches_are_trained_on(rows: int, epochs: float, batch: int, expected: int):
    order = common.bucketed_order([1] * rows, epochs, batch, seed=1)
    assert len(order) == expected
    assert set(order) <= set(range(rows))


@pytest.mark.parametrize(
    ("batch", "micro", "world", "expected"),
    [(64, 32, 2, (32, 1)), (64, 8, 2, (8, 4)), (4, 32, 2, (2, 1)), (1, 8, 1, (1, 1))],
)
def test_a_step_takes_its_batch_in_equal_parts(batch: int, micro: int, world: int, expected: tuple[int, int]):
    config = SftConfig(batch_size=batch, micro_batch_size=micro)
    arguments = common.trainer_arguments(config, RuntimeConfig(), 1, Path(), world)
    found = arguments["per_device_train_batch_size"], arguments["gradient_accumulation_steps"]
    assert found == expected
    assert found[0] * found[1] * world == batch


@pytest.mark.parametrize(("batch", "micro", "world"), [(12, 8, 1), (5, 8, 2), (1, 8, 2), (30, 8, 2)])
def test_a_batch_that_cannot_be_shared_out_is_refused(batch: int, micro: int, world: int):
    config = SftConfig(batch_size=batch, micro_batch_size=micro)
    with pytest.raises(
        UsageError, match=rf"batch_size {batch} cannot be split .* on {world} processes; choose a multiple"
    ):
        common.trainer_arguments(config, RuntimeConfig(), 1, Path(), world)


def test_the_newest_whole_checkpoint_is_gone_on_from(tmp_path: Path):
    assert common.last_checkpoint(tmp_path / "none") is None
    for step in (5, 9, 10, 15):
        (tmp_path / f"checkpoint-{step}").mkdir()
    assert common.last_checkpoint(tmp_path) is None
    for step in (5, 9, 10):
        (tmp_path / f"checkpoint-{step}" / common.WHOLE).touch()
    assert common.last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")


# Tokens


def test_sft_learns_the_response_and_the_end_but_not_the_prompt(generator: Path):
    tokenizer = load_tokenizer(generator)
    row = sft.tokens(tokenizer, "def add(n):\n", "    return 1\n")
    head = len(tokenizer("def add(n):\n")["input_ids"])
    assert row["input_ids"][head] == tokenizer.sep_token_id
    assert row["labels"][: head + 1] == [-100] * (head + 1)
    assert row["labels"][head + 1 :] == row["input_ids"][head + 1 :]
    assert tokenizer.decode(row["labels"][head + 1 : -1]) == "    return 1\n"
    assert row["labels"][-1] == tokenizer.eos_token_id


def test_reward_batches_hold_chosen_then_rejected_and_mask_their_completions():
    rows = [
        {"chosen_ids": [7, 8, 2, 5, 1], "rejected_ids": [7, 8, 2, 1], "prompt_length": 3},
        {"chosen_ids": [9, 2, 1], "rejected_ids": [9, 2, 6, 6, 6, 1], "prompt_length": 2},
    ]
    batch = reward.Collator(pad_token_id=0)(rows)
    assert batch["input_ids"].tolist() == [
        [7, 8, 2, 5, 1, 0],
        [9, 2, 1, 0, 0, 0],
        [7, 8, 2, 1, 0, 0],
        [9, 2, 6, 6, 6, 1],
    ]
    assert batch["attention_mask"].tolist() == [[1] * 5 + [0], [1] * 3 + [0] * 3, [1] * 4 + [0] * 2, [1] * 6]
    assert batch["completion_mask"].tolist() == [
        [0, 0, 0, 1, 1, 0],
        [0, 0, 1, 0, 0, 0],
        [0, 0, 0, 1, 0, 0],
        [0, 0, 1, 1, 1, 1],
    ]


def child(folder: Path, config: dict[str, Any], **inputs: Path) -> Child:
    """What a child process is told, for what goes wrong before there is anything to train."""
    runtime = RuntimeConfig(processes=1).model_dump()
    return Child(config=config, inputs=inputs, folder=folder, runtime=runtime, extra={})


# The stages, through their child processes


def train_sft(
    folder: Path, problems: Path, processes: int = 1, progress: Any = None, **changes: Any
) -> Outcome:
    """Stage `sft` on the tiny problems, batches of 8."""
    settings = {
        "epochs": 10,
        "batch_size": 8,
        "micro_batch_size": 4,
        "max_tokens": 96,
        "warmup_steps": 2,
    } | changes
    base = settings.pop("base", None)
    config = SftSlice(
        seed=1, model=ModelConfig(base=base) if base else TINY, base_digest=None, sft=SftConfig(**settings)
    )
    folder.mkdir(exist_ok=True)
    build = Build(
        config,
        {"problems": problems},
        folder,
        RuntimeConfig(processes=processes),
        progress or (lambda **_: None),
    )
    return SFT.build(build)


def test_the_sft_loss_of_two_ranks_is_the_mean_over_the_responses_tokens(
    tmp_path: Path, problems: Path, generator: Path
):
    outcome = train_sft(tmp_path / "sft", problems, processes=2, base=str(generator), **STILL)
    tokenizer, model = load_tokenizer(generator), load_generator(generator).eval()
    losses: list[torch.Tensor] = []
    for problem in make_problems()[:8]:
        row = sft.tokens(tokenizer, problem.prompt, problem.response or "")
        labels = torch.tensor(row["labels"][1:])
        with torch.inference_mode():
            logits = model(torch.tensor([row["input_ids"]])).logits[0, :-1].log_softmax(-1)
        losses += [-logits[at, label] for at, label in enumerate(labels.tolist()) if label != -100]
    assert outcome.metrics["curve"] == [
        {"step": 10, "loss": pytest.approx(torch.stack(losses).mean().item(), abs=2e-3)}
    ]
    assert outcome.metrics["examples"] == 8


def test_sft_killed_after_a_checkpoint_ends_with_the_same_weights(tmp_path: Path, problems: Path):
    settings = {"epochs": 40, "checkpoint_steps": 5, "learning_rate": 1e-3}
    undisturbed = train_sft(tmp_path / "undisturbed", problems, **settings)
    assert undisturbed.metrics["steps"] == 40
    killed = tmp_path / "killed"

    def kill(done: float, **_: Any) -> None:
        if done >= 12:
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                if str(killed / PROGRESS).encode() in path.read_bytes():
                    os.kill(int(path.parent.name), signal.SIGKILL)

    with pytest.raises(ChildFailed, match="ended with code -9"):
        train_sft(killed, problems, progress=kill, **settings)
    # What a kill in the middle of writing a checkpoint leaves.
    newest = Path(common.last_checkpoint(killed / PROGRESS / "checkpoints") or "")
    step = int(newest.name.rpartition("-")[2])
    assert 10 <= step < 40
    (newest.parent / f"checkpoint-{step + 5}").mkdir(exist_ok=True)
    (newest.parent / f"checkpoint-{step + 5}" / "model.safetensors").write_bytes(b"half")
    seen: list[float] = []
    resumed = train_sft(killed, problems, progress=lambda done, **_: seen.append(done), **settings)
    assert seen[0] == step + 1, "it goes on after the checkpoint"
    assert resumed.records_digest == undisturbed.records_digest
    assert resumed.metrics["loss"] == undisturbed.metrics["loss"]
    assert not list(killed.glob("*.bin"))


def test_sft_without_an_answer_says_so(tmp_path: Path):
    rows = [problem for problem in make_problems() if problem.split != "sft"]
    write_records(tmp_path / "problems.parquet", rows, Problem)
    config = SftSlice(seed=1, model=TINY, base_digest=None, sft=SftConfig()).model_dump()
    with pytest.raises(DataError, match="no problem of the sft split has a response"):
        sft.train(child(tmp_path, config, problems=tmp_path))


PAIRS = [
    Pair(
        "a",
        "def add(n):\n",
        f"    return n + {at}\n",
        f"    return {'n' * at}\n",
        "a#0",
        "a#1",
        "on_policy",
        1,
    )
    for at in range(4)
]


def train_reward(folder: Path, pairs: list[Pair], start: Path, **settings: Any) -> Outcome:
    """Stage `train_reward`, going on from the reranker `start`."""
    (folder / "pairs").mkdir(parents=True)
    (folder / "work").mkdir()
    write_records(folder / "pairs" / "pairs.parquet", pairs, Pair)
    config = RewardConfig(batch_size=4, micro_batch_size=4, epochs=10, learning_rate=1e-12, **settings)
    inputs = {"pairs": folder / "pairs", "start": start}
    runtime = RuntimeConfig(processes=1)
    build = Build(
        RewardSlice(seed=1, reward=config, continues=True), inputs, folder / "work", runtime, lambda **_: None
    )
    return TRAIN_REWARD.build(build)


def test_the_reward_loss_is_bradley_terry_on_the_last_token_and_on_the_completions_tokens(
    tmp_path: Path, reranker: Path
):
    outcome = train_reward(
        tmp_path, PAIRS, reranker, token_loss=0.5, center=0.01, warmup_steps=0, weight_decay=0.0
    )
    tokenizer, model = load_tokenizer(reranker), load_classifier(reranker).eval()
    losses = []
    for pair in PAIRS:
        row = reward.tokens(tokenizer, pair)
        scores = []
        for ids in (row["chosen_ids"], row["rejected_ids"]):
            with torch.inference_mode():
                out = model(torch.tensor([ids]), output_hidden_states=True)
                each = model.score(model.model.norm(out.hidden_states[-2]))[0, row["prompt_length"] :, 0]
            scores.append((out.logits[0, 0], each.sum()))
        (chosen, chosen_sum), (rejected, rejected_sum) = scores
        losses.append(
            -logsigmoid(chosen - rejected)
            - 0.5 * logsigmoid(chosen_sum - rejected_sum)
            + 0.01 * (chosen + rejected) ** 2
        )
    expected = torch.stack(losses).mean().item()
    assert outcome.metrics["curve"][0]["step"] == 10
    assert outcome.metrics["loss"] == pytest.approx(expected, rel=1e-3)
    assert (outcome.metrics["pairs"], outcome.metrics["too_long"]) == (4, 0)
    assert not list((tmp_path / "work").glob("*.bin"))


@pytest.mark.parametrize(
    ("pairs", "message"),
    [([], "none of the 0 pairs"), (PAIRS, r"none of the 4 pairs fits reward\.max_tokens=5")],
)
def test_no_pairs_to_learn_from_is_said(tmp_path: Path, reranker: Path, pairs: list[Pair], message: str):
    write_records(tmp_path / "pairs.parquet", pairs, Pair)
    config = RewardSlice(seed=1, reward=RewardConfig(max_tokens=5)).model_dump()
    with pytest.raises(DataError, match=message):
        reward.train(child(tmp_path, config, pairs=tmp_path, start=reranker))
