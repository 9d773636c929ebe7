"""Tests of the reranker's losses and batches: lists, penalties, the language model's loss, and rows that share a prompt."""

from math import inf, log
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import BloomConfig, BloomForSequenceClassification

from selftrain.cache_key import canonical_json
from selftrain.config import RewardConfig, RuntimeConfig
from selftrain.errors import UsageError
from selftrain.launch.launch import Child
from selftrain.models.footprint import reward_memory
from selftrain.models.layers import check_packed, tied_head
from selftrain.models.models import load_classifier, load_tokenizer
from selftrain.records import Pair, write_records
from selftrain.rerank.reranker import Reranker
from selftrain.training import reward, reward_rows
from selftrain.training.common import trainer_arguments
from tests.selftrain.plan.test_plan import TWO_LAYERS
from tests.selftrain.training.made import reward_job

RUNTIME = RuntimeConfig(processes=1)

PROGRAMS = {
    "a": ("    return n\n", ("    return n + 1\n", "    pass\n", "    return 2 * n + 1\n")),
    "b": ("    return 1\n", ("    return 0\n",)),
}
"""Problem -> its right program, and the wrong ones that are paired with it."""
PAIRS = [
    Pair(name, f"def {name}(n):\n", right, wrong, "", "", "on_policy", 1, gap=1 / (1 + at))
    for name, (right, others) in PROGRAMS.items()
    for at, wrong in enumerate(others)
]


def test_the_loss_of_a_list_is_the_cross_entropy_of_its_chosen_program():
    # Row 1: e^ln2 among 2 + 1 + 3, so -log(2 / 6). Row 2: 1 among 1 + e^(0 + ln 3), so -log(1 / 4).
    scores = torch.tensor([log(2), 0.0, 0.0, log(3), 0.0], requires_grad=True)
    rejected, gap = torch.tensor([[2, 3], [4, 0]]), torch.tensor([[0.0, 0.0], [log(3), -inf]])
    loss = reward.choice_loss(scores, rejected, gap)
    assert loss.item() == pytest.approx((log(3) + log(4)) / 2)
    loss.backward()
    # d/ds of -log softmax, over two rows: (p - 1) / 2 for the chosen, p / 2 for the others; p = 2/6, 1/6, 3/6 and 1/4, 3/4.
    assert scores.grad.tolist() == pytest.approx([-1 / 3, -3 / 8, 1 / 12, 1 / 4, 3 / 8])
    pair = reward.choice_loss(torch.tensor([1.0, 0.5]), torch.tensor([[1]]), torch.tensor([[0.2]]))
    assert pair.item() == pytest.approx(log(1 + 2.718281828**-0.3))  # Bradley-Terry


def test_a_mean_over_pairs_leaves_out_what_fills_a_row():
    gap = torch.tensor([[0.0, 1.0], [0.0, -inf]])
    assert reward.over_pairs(torch.tensor([[1.0, 3.0], [5.0, 100.0]]), gap).item() == 3.5


def test_the_language_models_loss_is_that_of_the_completions_tokens():
    # Two tokens with logits 0 and ln 3, so p = 1/4 and 3/4. Row 1 has the tokens 1, 0 in its completion, row 2 a 1.
    head = torch.tensor([[0.0], [log(3)]])
    ids, mask = torch.tensor([[0, 1, 0], [0, 0, 1]]), torch.tensor([[0, 1, 1], [0, 0, 1]])
    loss = reward.completion_loss(torch.ones(2, 3, 1), ids, mask, head)
    assert loss.item() == pytest.approx(((log(4 / 3) + log(4)) / 2 + log(4 / 3)) / 2)


def test_pairs_of_one_right_program_are_one_list_of_at_most_eight():
    def row(chosen: list[int], wrong: int, head: int = 2) -> dict[str, Any]:
        return {
            "chosen_ids": chosen,
            "rejected_ids": [[1, 2, wrong]],
            "prompt_length": head,
            "margin": [wrong / 2],
        }

    rows = [row([1, 2, 7], wrong) for wrong in range(10)]
    found = reward_rows.lists([rows[0], row([1, 2, 8], 3), *rows[1:], row([1, 2, 7], 3, head=1)])
    assert [len(each["rejected_ids"]) for each in found] == [8, 2, 1, 1]
    assert found[1] == {
        "chosen_ids": [1, 2, 7],
        "rejected_ids": [[1, 2, 8], [1, 2, 9]],
        "prompt_length": 2,
        "margin": [4.0, 4.5],
    }
    # 12 pairs in 4 lists: the power of two next to 3 on a logarithmic scale is 4.
    sizes = reward_rows.batches_of_lists(RewardConfig(batch_size=64, micro_batch_size=2), found)
    assert (sizes.batch_size, sizes.micro_batch_size) == (16, 1)


@pytest.mark.parametrize(
    ("pairs", "batch", "micro", "world", "expected"),
    [(4, 20, 10, 1, (5, 1)), (4, 48, 16, 2, (12, 3)), (2, 24, 12, 2, (12, 6)), (4, 72, 16, 2, (18, 3)), (8, 4, 2, 1, (1, 1))],
)  # fmt: skip
def test_batches_of_lists_can_be_shared_out(
    pairs: int, batch: int, micro: int, world: int, expected: tuple[int, int]
):
    rows = [{"rejected_ids": [[1]] * pairs}] * 3
    given = RewardConfig(batch_size=batch, micro_batch_size=micro)
    sizes = reward_rows.batches_of_lists(given, rows, world)
    assert (sizes.batch_size, sizes.micro_batch_size) == expected
    arguments = trainer_arguments(sizes, RUNTIME, 1, Path(), world)
    steps = arguments["per_device_train_batch_size"] * arguments["gradient_accumulation_steps"]
    assert steps * world == sizes.batch_size
    with pytest.raises(
        UsageError, match="batch_size 8 is 1 list of about 8 pairs .* choose a multiple of 16"
    ):
        reward_rows.batches_of_lists(RewardConfig(batch_size=8), [{"rejected_ids": [[1]] * 8}], 2)


def test_a_packed_row_has_its_prompt_once_and_programs_that_do_not_read_one_another():
    rows = [
        {"chosen_ids": [7, 8, 5, 1], "rejected_ids": [[7, 8, 1], [7, 8, 6, 1]], "prompt_length": 2, "margin": [0.5, 1.0]},
        {"chosen_ids": [9, 1], "rejected_ids": [[9, 4, 1]], "prompt_length": 1, "margin": [0.0]},
    ]  # fmt: skip
    batch = reward_rows.Collator(pad_token_id=0, packed=True)(rows)
    assert batch["input_ids"].tolist() == [[7, 8, 5, 1, 1, 6, 1], [9, 1, 4, 1, 0, 0, 0]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 2, 2, 3], [0, 1, 1, 2, 0, 0, 0]]
    assert batch["row"].tolist() == [0, 1, 0, 0, 1]
    assert batch["completion_mask"].tolist() == [
        [0, 0, 1, 1, 0, 0, 0],
        [0, 1, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 1, 0, 0],
        [0, 0, 0, 0, 0, 1, 1],
        [0, 0, 1, 1, 0, 0, 0],
    ]
    assert batch["rejected"].tolist() == [[2, 3], [4, 0]]
    assert batch["gap"].tolist() == [[0.5, 1.0], [0.0, -inf]]
    mask = reward_rows.packed_mask(batch["attention_mask"], batch["programs"], torch.float32)
    assert (mask[1, 0] == 0).long().tolist() == [
        [1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [1, 0, 1, 0, 0, 0, 0],
        [1, 0, 1, 1, 0, 0, 0],
        [1, 0, 0, 0, 0, 0, 0],
        [1, 0, 0, 0, 0, 0, 0],
        [1, 0, 0, 0, 0, 0, 0],
    ]


@pytest.mark.parametrize(
    "settings",
    [
        {"loss": "listwise", "margin": 1.5},
        {"loss": "listwise", "packed": True, "lm_loss": 0.5, "magnitude": 0.1},
        {"packed": True, "token_loss": 0.0, "margin": 0.5},
        {"packed": True, "token_pool": "mean", "lm_loss": 0.2, "lora": {"rank": 2}},
        {"lm_loss": 0.3, "magnitude": 0.2, "token_loss": 0.0, "center": 0.0},
    ],
    ids=str,
)
def test_the_loss_is_that_of_programs_read_one_by_one(
    tmp_path: Path, reranker: Path, settings: dict[str, Any]
):
    still = {"epochs": 1, "learning_rate": 1e-12, "warmup_steps": 0, "weight_decay": 0.0}
    job = reward_job(
        tmp_path / "rm", reranker, RUNTIME, continues=True, micro_batch_size=4, **still, **settings
    )
    write_records(tmp_path / "rm" / "pairs.parquet", PAIRS, Pair)
    metrics = reward.train(Child.model_validate(job["child"])).metrics

    config, tokenizer = RewardConfig(**settings), load_tokenizer(reranker)
    model = load_classifier(reranker).eval()

    def read(pair: Pair, program: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The scores of the last token and of the pooled tokens, and the mean loss of the language model."""
        head = [*tokenizer(pair.prompt)["input_ids"], tokenizer.sep_token_id]
        ids = torch.tensor([*head, *tokenizer(program)["input_ids"], tokenizer.eos_token_id])
        with torch.inference_mode():
            out = model(ids[None], output_hidden_states=True)
            each = model.score(model.model.norm(out.hidden_states[-2]))[0, len(head) :, 0]
            logits = out.hidden_states[-1][0] @ model.model.embed_tokens.weight.T
            nats = cross_entropy(logits[len(head) - 1 : -1], ids[len(head) :])
        return out.logits[0, 0], each.mean() if config.token_pool == "mean" else each.sum(), nats

    rows = [[pair] for pair in PAIRS] if config.loss == "pairwise" else [PAIRS[:3], PAIRS[3:]]
    losses, margins = [], []
    for row in rows:
        chosen, *others = [read(row[0], row[0].chosen), *(read(pair, pair.rejected) for pair in row)]
        last, pooled = (
            -log_softmax_first(
                chosen[at],
                [other[at] + config.margin * pair.gap for other, pair in zip(others, row, strict=True)],
            )
            for at in (0, 1)
        )
        scores = torch.stack([other[0] for other in others])
        losses.append(
            last
            + config.token_loss * pooled
            + config.center * ((chosen[0] + scores) ** 2).mean()
            + config.magnitude * (chosen[0] ** 2 + scores**2).mean() / 2
            + config.lm_loss * chosen[2]
        )
        margins.append((chosen[0] - scores.max()).item())
    # A batch of 4 pairs is one of 2 lists.
    assert metrics["loss"] == pytest.approx(torch.stack(losses).mean().item(), rel=1e-4)
    assert metrics["margin"] == pytest.approx(sum(margins) / len(margins), abs=1e-4)
    assert (metrics["pairs"], metrics["steps"]) == (4, 1)


def log_softmax_first(first: torch.Tensor, others: list[torch.Tensor]) -> torch.Tensor:
    """The logarithm of the first one's share among the exponentials of all."""
    return torch.stack([first, *others]).log_softmax(0)[0]


@pytest.mark.parametrize("padding", ["<pad>", "<end>"])
def test_packed_programs_have_the_scores_of_separate_rows(reranker: Path, padding: str):
    tokenizer, model = load_tokenizer(reranker), load_classifier(reranker).eval()
    tokenizer.pad_token = padding  # many tokenizers pad with the end token
    model.config.pad_token_id = tokenizer.pad_token_id
    rows = reward_rows.lists([reward_rows.tokens(tokenizer, pair, RewardConfig()) for pair in PAIRS])
    found = []
    for packed in (False, True):
        batch = reward_rows.Collator(tokenizer.pad_token_id, packed)(rows)
        trainer = object.__new__(reward.TokenRewardTrainer)
        trainer.model, trainer.settings, trainer.states = model, RewardConfig(packed=packed), None
        hooks = [
            model.score.register_forward_pre_hook(trainer._keep_states),
            model.register_forward_hook(trainer._score_tokens),
        ]
        with torch.inference_mode():
            found.append(trainer.scores(model, batch))
        for hook in hooks:
            hook.remove()
        assert batch["input_ids"].shape[0] == (2 if packed else 6)
    assert found[0].std() > 1
    assert torch.allclose(found[0], found[1], rtol=0, atol=1e-4)


def test_a_reranker_is_trained_and_scores_in_bfloat16(tmp_path: Path, reranker: Path):
    found = {}
    for arithmetic in ("float32", "bfloat16"):
        folder = tmp_path / arithmetic
        job = reward_job(
            folder, reranker, RUNTIME, continues=True, epochs=1, packed=True, compute_type=arithmetic
        )
        write_records(folder / "pairs.parquet", PAIRS, Pair)
        child = Child.model_validate(job["child"])
        loss = reward.train(child).metrics["loss"]
        ranker = Reranker.load(child.folder)
        assert {weight.dtype for weight in load_classifier(child.folder).parameters()} == {torch.float32}
        assert ranker.model.dtype is getattr(torch, arithmetic)
        found[arithmetic] = (loss, ranker.rank(PAIRS[0].prompt, [PAIRS[0].chosen, PAIRS[0].rejected]).scores)
    (exact, scores), (rounded, about) = found["float32"], found["bfloat16"]
    assert rounded == pytest.approx(exact, rel=0.05)
    assert rounded != exact
    assert about == pytest.approx(scores, rel=0.05)
    assert about != scores


def test_evaluations_are_of_pairs_with_every_loss(tmp_path: Path, reranker: Path):
    settings = {"loss": "listwise", "packed": True, "holdout": 0.5, "evaluation_steps": 1, "epochs": 1}
    job = reward_job(tmp_path / "rm", reranker, RUNTIME, continues=True, **settings)
    metrics = reward.train(Child.model_validate(job["child"])).metrics
    assert metrics["held_out"] > 0
    assert 0 <= metrics["evaluations"][0]["accuracy"] <= 1


def test_a_model_that_cannot_do_it_is_told(generator: Path):
    classifier = load_classifier(generator, fresh_head=True)
    assert tied_head(classifier) is classifier.model.embed_tokens
    classifier.config.logit_scale = 0.5
    with pytest.raises(UsageError, match=r"reward\.lm_loss needs .* has logit_scale; set it to 0"):
        tied_head(classifier)
    classifier.config.logit_scale, classifier.config.tie_word_embeddings = None, False
    with pytest.raises(UsageError, match=r"reward\.lm_loss needs .* a head of its own .*; set it to 0"):
        tied_head(classifier)
    check_packed(classifier)
    bloom = BloomForSequenceClassification(BloomConfig(vocab_size=8, hidden_size=8, n_head=2, n_layer=1))
    with pytest.raises(UsageError, match=r"reward\.packed needs .* BloomForSeq.* is not; set it to false"):
        check_packed(bloom)


def test_settings_at_their_defaults_leave_the_keys_as_they_were():
    names = {"compute_type", "loss", "lm_loss", "magnitude", "packed"}
    assert not names & canonical_json(RewardConfig(), "reward", whole=False).keys()
    changed = RewardConfig(loss="listwise", lm_loss=0.1, magnitude=0.1, packed=True, compute_type="bfloat16")
    assert names < canonical_json(changed, "reward", whole=False).keys()


def test_memory_is_planned_for_batches_of_long_lists_and_for_the_language_models_head():
    runtime = RuntimeConfig(processes=1, device="cpu")

    def activations(**settings: Any) -> float:
        config = RewardConfig(batch_size=8, micro_batch_size=4, max_tokens=64, **settings)
        return reward_memory(config, TWO_LAYERS, runtime).terms["activations"]

    # 4 pairs are 8 rows; half as many lists of 1 + 8 programs are 18.
    assert activations(loss="listwise") == pytest.approx(activations() * 18 / 8, rel=1e-6)
    assert activations(lm_loss=0.1) > activations()
