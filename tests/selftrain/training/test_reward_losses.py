"""Tests of the reranker's losses and batches: penalties, the language model's loss, and rows that share a prompt."""

from math import log
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy, logsigmoid
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


def test_the_loss_of_a_batch_is_bradley_terry():
    # Pair 1: ln 2 over 0, margin ln 3, so -log sigmoid(ln 2/3) = -log(2 / 5). Pair 2: 0 over ln 3, so -log(1 / 4).
    scores = torch.tensor([log(2), 0.0, 0.0, log(3)], requires_grad=True)
    loss = reward.pair_loss(scores, torch.tensor([log(3), 0.0]))
    assert loss.item() == pytest.approx((log(5 / 2) + log(4)) / 2)
    loss.backward()
    # d/ds of -log sigmoid, over two pairs: (p - 1) / 2 for the right program, (1 - p) / 2 for the wrong one; p = 2/5, 1/4.
    assert scores.grad.tolist() == pytest.approx([-3 / 10, -3 / 8, 3 / 10, 3 / 8])


def test_the_language_models_loss_is_that_of_the_completions_tokens():
    # Two tokens with logits 0 and ln 3, so p = 1/4 and 3/4. Row 1 has the tokens 1, 0 in its completion, row 2 a 1.
    head = torch.tensor([[0.0], [log(3)]])
    ids, mask = torch.tensor([[0, 1, 0], [0, 0, 1]]), torch.tensor([[0, 1, 1], [0, 0, 1]])
    loss = reward.completion_loss(torch.ones(2, 3, 1), ids, mask, head)
    assert loss.item() == pytest.approx(((log(4 / 3) + log(4)) / 2 + log(4 / 3)) / 2)


def test_a_packed_row_has_its_prompt_once_and_programs_that_do_not_read_one_another():
    rows = [
        {"chosen_ids": [7, 8, 5, 1], "rejected_ids": [7, 8, 6, 6, 1], "prompt_length": 2, "margin": 0.5},
        {"chosen_ids": [9, 1], "rejected_ids": [9, 4, 1], "prompt_length": 1, "margin": 0.0},
    ]
    batch = reward_rows.Collator(pad_token_id=0, packed=True)(rows)
    assert batch["input_ids"].tolist() == [[7, 8, 5, 1, 6, 6, 1], [9, 1, 4, 1, 0, 0, 0]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 2, 3, 4], [0, 1, 1, 2, 0, 0, 0]]
    assert batch["row"].tolist() == [0, 1, 0, 1]
    assert batch["scored"].tolist() == [3, 1, 6, 3]
    assert batch["completion_mask"].tolist() == [
        [0, 0, 1, 1, 0, 0, 0],
        [0, 1, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 1, 1, 1],
        [0, 0, 1, 1, 0, 0, 0],
    ]
    assert batch["margin"].tolist() == [0.5, 0.0]
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
        {"margin": 1.5},
        {"packed": True, "lm_loss": 0.5, "magnitude": 0.1},
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

    losses, margins = [], []
    for pair in PAIRS:
        right, wrong = read(pair, pair.chosen), read(pair, pair.rejected)
        last, pooled = (-logsigmoid(right[at] - wrong[at] - config.margin * pair.gap) for at in (0, 1))
        losses.append(
            last
            + config.token_loss * pooled
            + config.center * (right[0] + wrong[0]) ** 2
            + config.magnitude * (right[0] ** 2 + wrong[0] ** 2) / 2
            + config.lm_loss * right[2]
        )
        margins.append((right[0] - wrong[0]).item())
    assert metrics["loss"] == pytest.approx(torch.stack(losses).mean().item(), rel=1e-4)
    assert metrics["margin"] == pytest.approx(sum(margins) / len(margins), abs=1e-4)
    assert (metrics["pairs"], metrics["steps"]) == (4, 1)


@pytest.mark.parametrize("padding", ["<pad>", "<end>"])
def test_packed_programs_have_the_scores_of_separate_rows(reranker: Path, padding: str):
    tokenizer, model = load_tokenizer(reranker), load_classifier(reranker).eval()
    tokenizer.pad_token = padding  # many tokenizers pad with the end token
    model.config.pad_token_id = tokenizer.pad_token_id
    rows = [reward_rows.tokens(tokenizer, pair, RewardConfig()) for pair in PAIRS]
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
        assert batch["input_ids"].shape[0] == (4 if packed else 8)
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
    names = {"compute_type", "lm_loss", "magnitude", "packed"}
    assert not names & canonical_json(RewardConfig(), "reward", whole=False).keys()
    changed = RewardConfig(lm_loss=0.1, magnitude=0.1, packed=True, compute_type="bfloat16")
    assert names < canonical_json(changed, "reward", whole=False).keys()


def test_memory_is_planned_for_the_language_models_head():
    runtime = RuntimeConfig(processes=1, device="cpu")

    def activations(**settings: Any) -> float:
        config = RewardConfig(batch_size=8, micro_batch_size=4, max_tokens=64, **settings)
        return reward_memory(config, TWO_LAYERS, runtime).terms["activations"]

    assert activations(lm_loss=0.1) > activations()
