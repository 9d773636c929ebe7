"""Tests of SFT and reward training: losses, order of batches, evaluation, early stopping, and unusable training data."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import logsigmoid

from selftrain.config import ModelConfig, RewardConfig, RuntimeConfig, SftConfig
from selftrain.configfile import CONFIGS
from selftrain.errors import DataError, UsageError
from selftrain.launch.launch import Child
from selftrain.models.models import load_classifier, load_generator, load_tokenizer
from selftrain.records import Pair, Problem, write_records
from selftrain.stage import Context, Outcome
from selftrain.stages.sft import SFT, SftSlice
from selftrain.stages.train_reward import TRAIN_REWARD, RewardSlice
from selftrain.training import common, reward, sft
from tests.selftrain.conftest import TINY, make_problems

STILL = {"learning_rate": 1e-12, "warmup_steps": 0, "weight_decay": 0.0}
"""Training that moves no weight."""


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


@pytest.mark.parametrize(("rows", "batch"), [(100, 64), (31, 16), (198, 16)])
def test_no_row_is_left_out_of_every_pass(rows: int, batch: int):
    order = common.bucketed_order(range(rows), epochs=30, batch_size=batch, seed=1)
    assert set(order) == set(range(rows))


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
    assert arguments["ddp_find_unused_parameters"] is False, "PyTorch warns where it is set and all are used"
    found = arguments["per_device_train_batch_size"], arguments["gradient_accumulation_steps"]
    assert found == expected
    assert found[0] * found[1] * world == batch


@pytest.mark.parametrize(("batch", "micro", "world"), [(12, 8, 1), (5, 8, 2), (1, 8, 2), (30, 8, 2)])
def test_a_batch_that_cannot_be_shared_out_is_refused(batch: int, micro: int, world: int):
    config = SftConfig(batch_size=batch, micro_batch_size=micro)
    with pytest.raises(
        UsageError, match=rf"batch_size {batch} cannot be split .* on {world} process(es)?; choose a multiple"
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


# Evaluation


def history(*losses: float) -> list[dict[str, float]]:
    """A trainer's history with evaluations at steps 10, 20, ..."""
    rows: list[dict[str, float]] = [{"step": 1, "loss": 9.0}]
    return rows + [{"step": 10 * at, "eval_loss": loss} for at, loss in enumerate(losses, 1)]


def test_the_best_evaluation_is_the_first_of_equal_ones_and_training_ends_after_too_many_that_are_not():
    lower = common.Goal("loss", higher=False, steps=10, patience=2)
    higher = common.Goal("loss", higher=True, steps=10, patience=2)
    assert (lower.best(history()), lower.should_stop(history())) == (None, False)
    found = history(3.0, 1.0, 1.0, 2.0)
    assert (lower.best(found), lower.should_stop(found)) == (20, True)
    assert (higher.best(found), higher.should_stop(found)) == (10, True)
    assert not lower.should_stop(history(3.0, 1.0, 1.0))
    assert lower.evaluations(found)[:2] == [{"step": 10, "loss": 3.0}, {"step": 20, "loss": 1.0}]


def test_long_runs_have_a_point_for_ten_steps_and_short_ones_one_for_each():
    rows = [{"step": at, "loss": float(at), "other": 0.0} for at in range(1, 106)]
    assert common.curve(rows[:99], ["loss"]) == [{"step": at, "loss": at} for at in range(1, 100)]
    assert common.curve(rows, ["loss"]) == [{"step": 10 * at, "loss": 10 * at - 4.5} for at in range(1, 11)]


def test_problems_are_held_out_by_their_id_and_the_seed_alone():
    pairs = [replace(PAIRS[0], problem_id=f"p{at % 200}", round=at // 200) for at in range(400)]
    training, held_out = reward.split(pairs, 0.25, seed=1)
    out = {pair.problem_id for pair in held_out}
    assert len(training) + len(held_out) == 400
    assert not out & {pair.problem_id for pair in training}
    assert 30 <= len(out) <= 70
    later = {pair.problem_id for pair in reward.split(pairs[57:], 0.25, seed=1)[1]}
    assert later <= out
    assert {pair.problem_id for pair in reward.split(pairs, 0.25, seed=2)[1]} != out
    assert reward.split(pairs, 0.0, seed=1) == (pairs, [])


def test_a_problem_is_held_out_in_all_its_languages():
    pairs = [
        replace(PAIRS[0], problem_id=f"p{at}.{language}", task=f"p{at}")
        for at in range(100)
        for language in ("py", "sh", "js")
    ]
    training, held_out = reward.split(pairs, 0.25, seed=1)
    tasks = [{pair.task for pair in part} for part in (training, held_out)]
    assert not tasks[0] & tasks[1]
    assert len(held_out) == 3 * len(tasks[1])
    assert 10 <= len(tasks[1]) <= 40


# Tokens


def test_sft_learns_the_response_and_the_end_but_not_the_prompt(generator: Path):
    tokenizer = load_tokenizer(generator)
    row = sft.tokens(tokenizer, "def add(n):\n", "    return 1\n", "py")
    head = len(tokenizer("def add(n):\n")["input_ids"])
    assert row["input_ids"][head] == tokenizer.sep_token_id
    assert row["labels"][: head + 1] == [-100] * (head + 1)
    assert row["labels"][head + 1 :] == row["input_ids"][head + 1 :]
    assert tokenizer.decode(row["labels"][head + 1 : -1]) == "    return 1\n"
    assert row["labels"][-1] == tokenizer.eos_token_id


def test_reward_batches_hold_chosen_then_rejected_and_mask_their_completions():
    rows = [
        {"chosen_ids": [7, 8, 2, 5, 1], "rejected_ids": [7, 8, 2, 1], "prompt_length": 3, "margin": 0.5},
        {"chosen_ids": [9, 2, 1], "rejected_ids": [9, 2, 6, 6, 6, 1], "prompt_length": 2, "margin": 1.0},
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
    """What a child process is told, for what is trained in this process or goes wrong before."""
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
    build = Context(
        config,
        {"problems": problems},
        folder,
        RuntimeConfig(processes=processes),
        progress or (lambda **_: None),
    )
    return SFT.run(build)


def test_the_sft_loss_of_two_ranks_is_the_mean_over_the_responses_tokens(
    tmp_path: Path, problems: Path, generator: Path
):
    told: list[dict[str, Any]] = []
    outcome = train_sft(
        tmp_path / "sft",
        problems,
        processes=2,
        progress=lambda **one: told.append(one),
        base=str(generator),
        **STILL,
    )
    assert [one["done"] for one in told] == list(range(1, 11))
    assert told[-1]["total"] == 10
    assert told[-1]["figures"]["tokens_per_second"] > 0
    tokenizer, model = load_tokenizer(generator), load_generator(generator).eval()
    losses: list[torch.Tensor] = []
    for problem in make_problems()[:8]:
        row = sft.tokens(tokenizer, problem.prompt, problem.response or "", problem.language)
        labels = torch.tensor(row["labels"][1:])
        with torch.inference_mode():
            logits = model(torch.tensor([row["input_ids"]])).logits[0, :-1].log_softmax(-1)
        losses += [-logits[at, label] for at, label in enumerate(labels.tolist()) if label != -100]
    expected = pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)
    assert outcome.metrics["curve"] == [{"step": step, "loss": expected} for step in range(1, 11)]
    assert outcome.metrics["loss"] == expected
    assert outcome.metrics["examples"] == 8


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
    build = Context(
        RewardSlice(seed=1, reward=config, continues=True), inputs, folder / "work", runtime, lambda **_: None
    )
    return TRAIN_REWARD.run(build)


def test_the_reward_loss_is_bradley_terry_on_the_last_token_and_on_the_completions_tokens(
    tmp_path: Path, reranker: Path
):
    outcome = train_reward(
        tmp_path, PAIRS, reranker, token_loss=0.5, center=0.01, warmup_steps=0, weight_decay=0.0
    )
    tokenizer, model = load_tokenizer(reranker), load_classifier(reranker).eval()
    losses = []
    for pair in PAIRS:
        row = reward.tokens(tokenizer, pair, RewardConfig())
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
    assert [row["step"] for row in outcome.metrics["curve"]] == list(range(1, 11))
    assert outcome.metrics["loss"] == pytest.approx(expected, rel=1e-5)
    assert (outcome.metrics["pairs"], outcome.metrics["too_long"]) == (4, 0)
    assert not list((tmp_path / "work").glob("*.bin"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"max_tokens": 5},
            r"none of the 4 pairs fits reward\.max_tokens=5 \(the shortest has \d\d tokens, .*\): raise it",
        ),
        (
            {"holdout": 0.99},
            r"reward\.holdout=0\.99 leaves no pair to train on, of 4 pairs of 1 problem: lower",
        ),
    ],
)
def test_no_pairs_to_learn_from_is_said(
    tmp_path: Path, reranker: Path, settings: dict[str, Any], message: str
):
    write_records(tmp_path / "pairs.parquet", PAIRS, Pair)
    config = RewardSlice(seed=1, reward=RewardConfig(**settings)).model_dump()
    with pytest.raises(DataError, match=message):
        reward.train(child(tmp_path, config, pairs=tmp_path, start=reranker))


@pytest.mark.parametrize(
    "settings",
    [
        {"token_loss": 0.0},
        {"token_loss": 0.0, "margin": 2.0, "template": "# {x}\n{prompt}"},
        {"token_loss": 0.7, "token_pool": "mean", "margin": 0.5, "center": 0.0},
        {"token_loss": 1.3, "last_loss": 0.0},
        {"last_loss": 0.6, "margin": 1.5, "center": 0.02},
    ],
    ids=str,
)
def test_the_reward_loss_with_other_options_is_what_they_say(
    tmp_path: Path, reranker: Path, settings: dict[str, Any]
):
    pairs = [replace(pair, gap=gap) for pair, gap in zip(PAIRS, (1.0, 0.5, 0.25, 0.0), strict=True)]
    write_records(tmp_path / "pairs.parquet", pairs, Pair)
    config = RewardConfig(batch_size=4, micro_batch_size=2, epochs=1, **STILL, **settings)
    piece = RewardSlice(seed=1, reward=config, continues=True).model_dump()
    outcome = reward.train(child(tmp_path, piece, pairs=tmp_path, start=reranker))

    tokenizer, model = load_tokenizer(reranker), load_classifier(reranker).eval()
    expected = 0.0
    for pair in pairs:
        prompt = ("# {x}\n" if "template" in settings else "") + pair.prompt
        head = tokenizer(prompt)["input_ids"] + [tokenizer.sep_token_id]
        scores = []
        for program in (pair.chosen, pair.rejected):
            ids = head + tokenizer(program)["input_ids"] + [tokenizer.eos_token_id]
            with torch.inference_mode():
                out = model(torch.tensor([ids]), output_hidden_states=True)
                each = model.score(model.model.norm(out.hidden_states[-2]))[0, len(head) :, 0]
            scores.append((out.logits[0, 0], each.sum() if config.token_pool == "sum" else each.mean()))
        (chosen, pooled), (rejected, other) = scores
        gap = config.margin * pair.gap
        expected += (
            -config.last_loss * logsigmoid(chosen - rejected - gap)
            - config.token_loss * logsigmoid(pooled - other - gap)
            + config.center * (chosen + rejected) ** 2
        ).item() / 4
    assert outcome.metrics["loss"] == pytest.approx(expected, rel=1e-5)
    assert json.loads((tmp_path / "config.json").read_text())["prompt_template"] == config.template


def train_from_base(folder: Path, base: Path) -> Outcome:
    """Stage `train_reward` from `reward.base`, in this process, without moving a weight."""
    folder.mkdir()
    write_records(folder / "pairs.parquet", PAIRS, Pair)
    config = RewardConfig(batch_size=4, epochs=1, base=str(base), **STILL)
    piece = RewardSlice(seed=1, reward=config, base_digest="of its files").model_dump()
    return reward.train(child(folder, piece, pairs=folder))


def test_a_reranker_may_start_from_a_base_with_or_without_a_head(
    tmp_path: Path, generator: Path, reranker: Path
):
    train_from_base(tmp_path / "generator", generator)
    train_from_base(tmp_path / "reranker", reranker)
    bodies = [load_classifier(tmp_path / name).model for name in ("generator", "reranker")]
    for one, other in zip(*(body.parameters() for body in bodies), strict=True):
        assert torch.allclose(one, other, atol=1e-6), "both have the generator's body"
    heads = [load_classifier(at).score.weight for at in (tmp_path / "reranker", reranker)]
    assert torch.allclose(*heads, atol=1e-6)
    config = json.loads((reranker / "config.json").read_text())
    (tmp_path / "two").mkdir()
    for file in reranker.iterdir():
        (tmp_path / "two" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "two" / "config.json").write_text(
        json.dumps(config | {"id2label": {"0": "a", "1": "b"}, "label2id": {"a": 0, "b": 1}})
    )
    with pytest.raises(UsageError, match=r"two: expected one label .* got num_labels=2"):
        train_from_base(tmp_path / "out", tmp_path / "two")


def test_evaluation_without_anything_to_evaluate_on_is_said(tmp_path: Path, problems: Path, reranker: Path):
    config = SftSlice(seed=1, model=TINY, base_digest=None, sft=SftConfig(evaluation_steps=5)).model_dump()
    with pytest.raises(DataError, match=r"sft\.evaluation_steps=5 needs problems of the validation split"):
        sft.train(child(tmp_path, config, problems=problems))
    write_records(tmp_path / "pairs.parquet", PAIRS, Pair)
    settings = RewardConfig(evaluation_steps=5, holdout=0.01)
    piece = RewardSlice(seed=1, reward=settings, continues=True).model_dump()
    with pytest.raises(
        DataError, match=r"reward\.holdout=0\.01 leaves no pair to evaluate on, of 4 pairs of 1"
    ):
        reward.train(child(tmp_path, piece, pairs=tmp_path, start=reranker))


# What cannot be resumed from


def test_a_checkpoint_of_another_model_or_of_other_processes_is_refused_before_training(
    tmp_path: Path, problems: Path
):
    settings = SftConfig(epochs=2, batch_size=8, max_tokens=96)

    def train(**changes: Any) -> None:
        model = TINY.model_copy(update=changes)
        config = SftSlice(seed=1, model=model, base_digest=None, sft=settings).model_dump()
        sft.train(child(tmp_path, config, problems=problems))

    train()
    for changes, what in (
        ({"hidden_size": 32}, r"embed_tokens\.weight has the shape \[\d+, 16\] there and \[\d+, 32\] here"),
        ({"layers": 3}, r"layers\.2\S* has the shape None there"),
        ({"layers": 1}, r"layers\.1\S* has the shape \[.*\] there and None here"),
    ):
        with pytest.raises(UsageError, match=rf"checkpoint-2 is of another model: model\.{what}"):
            train(**changes)
    mark = next(tmp_path.glob(f"*/checkpoints/checkpoint-2/{common.WHOLE}"))
    assert json.loads(mark.read_text()) == {"processes": 1, "zero": 0}
    mark.write_text(json.dumps({"processes": 4, "zero": 0}))
    train()
    mark.write_text(json.dumps({"processes": 4, "zero": 2}))
    with pytest.raises(UsageError, match="written by 4 processes with ZeRO stage 2 .* by 1 process with"):
        train()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (None, "No such file"),
        ("{", "JSONDecodeError"),
        ("[]", "TypeError"),
        ("{}", "KeyError"),
        ('{"zero_optimization": {"stage": 0}}', "expected ZeRO stage 1, 2 or 3, got 0"),
        (
            '{"zero_optimization": {"stage": 2}, "gradient_clipping": 0.5, "train_batch_size": 8}',
            'expected no train_batch_size, gradient_clipping, or "auto"',
        ),
    ],
)
def test_a_deepspeed_file_that_is_none_is_told(tmp_path: Path, content: str | None, what: str):
    if content is not None:
        (tmp_path / "zero.json").write_text(content)
    with pytest.raises(UsageError, match=rf"runtime\.deepspeed: .*zero\.json.*{what}"):
        common.deepspeed_settings(RuntimeConfig(deepspeed=str(tmp_path / "zero.json")))


def test_batches_and_the_largest_gradient_that_a_deepspeed_file_lacks_are_those_of_the_config(tmp_path: Path):
    file = tmp_path / "zero.json"
    file.write_text(json.dumps({"zero_optimization": {"stage": 2}, "gradient_clipping": "auto"}))
    found = common.deepspeed_settings(RuntimeConfig(deepspeed=str(file))) or {}
    for name in (
        "train_batch_size",
        "train_micro_batch_size_per_gpu",
        "gradient_accumulation_steps",
        "gradient_clipping",
    ):
        assert found[name] == "auto"
    shipped = CONFIGS / "deepspeed" / "zero2.json"
    assert common.deepspeed_settings(RuntimeConfig(deepspeed=str(shipped))) == json.loads(shipped.read_text())
