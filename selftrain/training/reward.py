"""Stages B and E: trains the reranker to score right programs above wrong ones, with TRL's RewardTrainer.

The loss is pairwise Bradley-Terry, -log sigmoid(score(chosen) - score(rejected)) (Christiano et al. 2017). It is applied twice:

- to the score of the last token, with weight `last_loss`;
- to the per-token scores pooled over the completion, with weight `token_loss`. These scores are computed from the hidden states
  one layer below the last. This term teaches the model *where* a program goes wrong.

The exported model is an ordinary sequence classifier that scores the last token.
Run as a child process: `python -m selftrain.training.reward resolved.json`.
"""

import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch.nn.functional import logsigmoid
from trl import RewardConfig as TrlRewardConfig
from trl import RewardTrainer

from selftrain.config import RewardConfig
from selftrain.errors import DataError, UsageError
from selftrain.launch.launch import Child, child_main
from selftrain.launch.ranks import world_size
from selftrain.models import lora
from selftrain.models.layers import keep_layers
from selftrain.models.models import (
    encode_completion,
    encode_prompt,
    fill_template,
    final_norm,
    load_classifier,
    load_tokenizer,
    pad,
)
from selftrain.models.prompts import reranker_template
from selftrain.models.weights import digest_weights
from selftrain.records import Pair, read_records
from selftrain.stage import Outcome
from selftrain.stages.train_reward import RewardSlice
from selftrain.training import common
from selftrain.training.callbacks import Goal
from selftrain.training.common import Examples, TrainerMixin, start_deepspeed, trainer_arguments


def train(child: Child) -> Outcome:
    """Train the reranker, and write it and its tokenizer into the child's folder."""
    config = RewardSlice.model_validate(child.config)
    pairs = read_records(child.inputs["pairs"] / "pairs.parquet", Pair)
    folder, options = _start(config, child)
    tokenizer = load_tokenizer(folder, **options)
    template = reranker_template(tokenizer, config.reward.template)
    settings = config.reward.model_copy(update={"template": template})
    config = config.model_copy(update={"reward": settings})
    training, held_out = split(pairs, settings.holdout, config.seed)
    examples = _examples(tokenizer, training, held_out, settings)
    trainer = _trainer(config, child, tokenizer, examples)
    goal = Goal("accuracy", higher=True, steps=settings.evaluation_steps, patience=settings.patience)
    trained = common.train(trainer, goal, child.runtime, "train_reward")
    base = partial(_model, config, child, tokenizer) if settings.lora else None
    common.export(trained.checkpoint, child.folder, tokenizer, base)
    metrics = {
        "pairs": len(examples.trained),
        "too_long": examples.too_long,
        "held_out": len(held_out),
        **trained.metrics(goal, ["loss", "accuracy", "margin"]),
    }
    return Outcome(digest_weights(child.folder), metrics)


def _examples(
    tokenizer: Any, training: Sequence[Pair], held_out: Sequence[Pair], settings: RewardConfig
) -> Examples:
    """Tokenise the pairs to train and to evaluate on. Raises DataError where there are none, or all are too long."""
    pairs = [*training, *held_out]
    found = f"of {len(pairs)} pairs of {len({pair.problem_id for pair in pairs})} problems"
    if not training:
        raise DataError(
            f"reward.holdout={settings.holdout:g} leaves no pair to train on, {found}: lower it, or mine more pairs"
        )
    rows = [tokens(tokenizer, pair, settings) for pair in training]
    kept = [row for row in rows if _longest(row) <= settings.max_tokens]
    if not kept:
        raise DataError(
            f"none of the {len(rows)} pairs fits reward.max_tokens={settings.max_tokens} (the shortest has "
            f"{min(map(_longest, rows))} tokens, its prompt included): raise it"
        )
    evaluated = [tokens(tokenizer, pair, settings) for pair in held_out] if settings.evaluation_steps else []
    evaluated = [row for row in evaluated if _longest(row) <= settings.max_tokens]
    if settings.evaluation_steps and not evaluated:
        raise DataError(
            f"reward.holdout={settings.holdout:g} leaves no pair to evaluate on, {found}: raise it, or set "
            "reward.evaluation_steps to null"
        )
    return Examples(kept, evaluated, len(rows) - len(kept))


def _trainer(config: RewardSlice, child: Child, tokenizer: Any, examples: Examples) -> "TokenRewardTrainer":
    """Load the model and create its trainer."""
    settings = config.reward
    arguments = TrlRewardConfig(
        **trainer_arguments(
            settings, child.runtime, config.seed, child.private / "checkpoints", world_size()
        ),
        center_rewards_coefficient=settings.center or None,
        remove_unused_columns=False,
    )
    start_deepspeed(child.runtime)
    torch.manual_seed(config.seed)
    model = _model(config, child, tokenizer)
    if settings.lora:
        model = lora.add(model, settings.lora, head=True)
    return TokenRewardTrainer(
        model=model,
        args=arguments,
        processing_class=tokenizer,
        data_collator=Collator(tokenizer.pad_token_id),
        settings=settings,
        **examples.datasets(settings, config.seed, _longest),
    )


def split(pairs: Sequence[Pair], holdout: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Split `pairs` by task into pairs to train on and held-out pairs; about a share `holdout` of the tasks is held out.

    A problem in several languages is one task, so the pairs held out are of problems that training sees in no language. Whether
    a task is held out depends only on its name and the seed, so the same tasks are held out in every round.
    """
    parts: tuple[list[Pair], list[Pair]] = ([], [])
    for pair in pairs:
        drawn = random.Random(f"holdout/{seed}/{pair.task or pair.problem_id}").random()
        parts[drawn < holdout].append(pair)
    return parts


def _start(config: RewardSlice, child: Child) -> tuple[str | Path, dict[str, Any]]:
    """The folder or hub id of the model that training starts from, and options for `from_pretrained`."""
    base = config.reward.base
    if config.base_digest is None or base is None:
        return child.inputs["start"], {}
    return base, {} if Path(base).is_dir() else {"revision": config.base_digest}


def _model(config: RewardSlice, child: Child, tokenizer: Any) -> Any:
    """The reranker before training; its config stores the padding id and the prompt template, which scoring needs."""
    folder, options = _start(config, child)
    # None: a `reward.base` may be a reward model already, whose score head is then kept.
    fresh_head = None if config.base_digest else not config.continues
    model = load_classifier(folder, fresh_head=fresh_head, random_head=config.tiny, **options)
    if config.reward.layers is not None:
        keep_layers(model, config.reward.layers)
    model.config.pad_token_id = tokenizer.pad_token_id
    model.config.prompt_template = config.reward.template
    return model


def tokens(tokenizer: Any, pair: Pair, settings: RewardConfig) -> dict[str, Any]:
    """One pair as token ids: prompt + program for both programs, the prompt's length, and the margin between the scores."""
    prompt = encode_prompt(tokenizer, fill_template(settings.template, pair.prompt))
    return {
        "chosen_ids": prompt + encode_completion(tokenizer, pair.chosen),
        "rejected_ids": prompt + encode_completion(tokenizer, pair.rejected),
        "prompt_length": len(prompt),
        "margin": settings.margin * pair.gap,
    }


def _longest(row: dict[str, Any]) -> int:
    return max(len(row["chosen_ids"]), len(row["rejected_ids"]))


class Collator:
    """Builds a batch: chosen rows before rejected rows, as RewardTrainer expects, and a mask of the completions' tokens."""

    def __init__(self, pad_token_id: int) -> None:
        self.pad_token_id = pad_token_id

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """`input_ids`, `attention_mask`, `completion_mask`: [2 * len(rows), longest]; `gap`: [len(rows)], the margins."""
        ids = [row["chosen_ids"] for row in rows] + [row["rejected_ids"] for row in rows]
        heads = [row["prompt_length"] for row in rows] * 2
        return {
            "input_ids": pad(ids, self.pad_token_id),
            "attention_mask": pad([[1] * len(row) for row in ids], 0),
            "completion_mask": pad(
                [[0] * head + [1] * (len(row) - head) for row, head in zip(ids, heads, strict=True)], 0
            ),
            "gap": torch.tensor([row["margin"] for row in rows]),
        }


class TokenRewardTrainer(TrainerMixin, RewardTrainer):
    """RewardTrainer with an additional loss on pooled per-token scores."""

    measures = ("accuracy", "loss")

    def __init__(self, *args: Any, settings: RewardConfig, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.settings = settings
        self.token_scores: Any = None
        """[rows, longest] per-token scores of the batch in the last forward pass."""
        classifier = self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model
        self.norm: Any = final_norm(classifier)
        if not settings.token_loss:
            return
        if self.norm is None:
            raise UsageError(
                f"reward.token_loss needs a model with a final norm before its head, and a {type(classifier).__name__} has none "
                "that is known; set it to 0"
            )
        classifier.register_forward_hook(self._score_tokens)

    def _score_tokens(self, classifier: Any, args: Any, outputs: Any) -> None:
        """Forward hook: score each token from the hidden states below the last layer, with the final norm and the score head.

        The last layer can attend to these states from the last token, whose score the reranker returns. This is a forward hook
        because under ZeRO-3 the weights are gathered only inside the wrapped model's forward pass.
        """
        if outputs.hidden_states is not None:
            self.token_scores = classifier.score(self.norm(outputs.hidden_states[-2])).squeeze(-1)

    def create_optimizer(self, model: Any = None) -> Any:
        """The trainer's optimizer, with the score head's weights in a group of their own if they have their own learning rate.

        Raises UsageError where DeepSpeed's file names an optimizer, which would not know of that rate.
        """
        new = self.optimizer is None  # with DeepSpeed this is called twice
        optimizer = super().create_optimizer(model)
        rate = self.settings.head_learning_rate
        if rate is not None and not hasattr(optimizer, "param_groups"):
            raise UsageError(
                "reward.head_learning_rate: the file of runtime.deepspeed names an optimizer, which has one rate for all "
                "weights; remove `optimizer` from the file, or set reward.head_learning_rate to null"
            )
        if rate is not None and new:
            named = (self.model if model is None else model).named_parameters()
            head = {id(weight) for name, weight in named if ".score." in f".{name}"}
            for group in list(optimizer.param_groups):
                own = [weight for weight in group["params"] if id(weight) in head]
                if own:
                    group["params"] = [weight for weight in group["params"] if id(weight) not in head]
                    optimizer.add_param_group({**group, "params": own, "lr": rate})
        return optimizer

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = ["chosen_ids", "rejected_ids", "prompt_length", "margin"]

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """`last_loss` x Bradley-Terry loss of the last token's score + `token_loss` x Bradley-Terry loss of the pooled per-token
        scores + TRL's centering term."""
        settings = self.settings
        mask, gap = inputs.pop("completion_mask"), inputs.pop("gap")
        inputs["output_hidden_states"] = bool(settings.token_loss)
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        if settings.margin or settings.last_loss != 1:  # TRL's own loss has neither margin nor weight
            last = outputs.logits.squeeze(-1)
            loss = loss - bradley_terry(last) + settings.last_loss * bradley_terry(last, gap)
        if settings.token_loss:
            pooled = (self.token_scores * mask).sum(1)
            if settings.token_pool == "mean":  # noqa: S105
                pooled = pooled / mask.sum(1)
            loss = loss + settings.token_loss * bradley_terry(pooled, gap)
            self.token_scores = None
        return (loss, outputs) if return_outputs else loss

    def measure(self, model: Any, batch: dict[str, Any]) -> torch.Tensor:
        """[pairs, 3] the weight 1, whether the chosen program has the higher score (1 or 0), and the Bradley-Terry loss."""
        outputs = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False)
        chosen, rejected = outputs.logits.squeeze(-1).float().chunk(2)
        loss = -logsigmoid(chosen - rejected)
        return torch.stack([torch.ones_like(loss), (chosen > rejected).float(), loss], 1)


def bradley_terry(scores: torch.Tensor, gap: torch.Tensor | float = 0.0) -> torch.Tensor:
    """Mean of -log sigmoid(chosen - rejected - gap) over pairs, a scalar.

    scores  [2 * pairs] float32, the scores of the chosen programs, then those of the rejected programs
    gap     [pairs] or a number: the margin, in units of the score
    """
    chosen, rejected = scores.chunk(2)
    return -logsigmoid(chosen - rejected - gap).mean()


if __name__ == "__main__":
    child_main(train)
