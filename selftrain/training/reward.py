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
from transformers.modeling_outputs import SequenceClassifierOutput
from trl import RewardConfig as TrlRewardConfig
from trl import RewardTrainer

from selftrain.config import RewardConfig
from selftrain.errors import DataError, UsageError
from selftrain.launch.launch import Child, child_main
from selftrain.launch.ranks import world_size
from selftrain.models import lora
from selftrain.models.layers import check_packed, keep_layers, tied_head
from selftrain.models.models import final_norm, load_classifier, load_tokenizer
from selftrain.models.prompts import reranker_template
from selftrain.models.vocabulary import chosen_logprobs
from selftrain.models.weights import digest_weights
from selftrain.records import Pair, read_records
from selftrain.stage import Outcome
from selftrain.stages.train_reward import RewardSlice
from selftrain.training import common
from selftrain.training.callbacks import Goal
from selftrain.training.common import Examples, TrainerMixin, start_deepspeed, trainer_arguments
from selftrain.training.reward_rows import Collator, longest, packed_mask, tokens
from selftrain.units import count_of, none_of


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
    found = f"of {count_of(len(pairs), 'pair')} of {count_of(len({pair.problem_id for pair in pairs}), 'problem')}"
    if not training:
        raise DataError(
            f"reward.holdout={settings.holdout:g} leaves no pair to train on, {found}: lower it, or mine more pairs"
        )
    rows = [tokens(tokenizer, pair, settings) for pair in training]
    kept = [row for row in rows if longest(row) <= settings.max_tokens]
    if not kept:
        raise DataError(
            f"{none_of(len(rows), 'pair')} fits reward.max_tokens={settings.max_tokens} (the shortest has "
            f"{min(map(longest, rows))} tokens, its prompt included): raise it"
        )
    evaluated = [tokens(tokenizer, pair, settings) for pair in held_out] if settings.evaluation_steps else []
    evaluated = [row for row in evaluated if longest(row) <= settings.max_tokens]
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
        data_collator=Collator(tokenizer.pad_token_id, settings.packed),
        settings=settings,
        **examples.datasets(settings, config.seed, longest),
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
    """The reranker before training; its config stores what scoring needs: the padding id, the prompt template, the arithmetic."""
    folder, options = _start(config, child)
    # None: a `reward.base` may be a reward model already, whose score head is then kept.
    fresh_head = None if config.base_digest else not config.continues
    random = config.reward.random
    model = load_classifier(
        folder, fresh_head=random or fresh_head, random_head=config.tiny, random=random, **options
    )
    if config.reward.layers is not None:
        keep_layers(model, config.reward.layers)
    model.config.pad_token_id = tokenizer.pad_token_id
    model.config.prompt_template = config.reward.template
    if config.reward.compute_type != "float32":
        model.config.compute_type = config.reward.compute_type
    return model


class TokenRewardTrainer(TrainerMixin, RewardTrainer):
    """RewardTrainer with the losses of `RewardConfig`; TRL's own loss is not used, its metrics are."""

    measures = ("accuracy", "loss")

    def __init__(self, *args: Any, settings: RewardConfig, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.settings = settings
        self.states: Any = None
        """[rows, longest, hidden] final states of the last forward pass, with `lm_loss` or `packed`."""
        self.last_scores: Any = None
        """[rows, longest] their scores, with `packed`."""
        self.token_scores: Any = None
        """[rows, longest] per-token scores of the batch in the last forward pass, one layer below the last."""
        classifier = self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model
        self.norm: Any = final_norm(classifier)
        self.head: Any = tied_head(classifier) if settings.lm_loss else None
        if settings.token_loss and self.norm is None:
            raise UsageError(
                f"reward.token_loss needs a model with a final norm before its head, and a {type(classifier).__name__} has none "
                "that is known; set it to 0"
            )
        if settings.packed:
            check_packed(classifier)
        if settings.lm_loss or settings.packed:
            classifier.score.register_forward_pre_hook(self._keep_states)
        if settings.token_loss or settings.packed:
            classifier.register_forward_hook(self._score_tokens)

    def _keep_states(self, head: Any, args: Any) -> None:
        """Hook before the score head."""
        self.states = args[0]

    def _score_tokens(self, classifier: Any, args: Any, outputs: Any) -> None:
        """Forward hook: score each token, with the final norm and the score head.

        The scores of the loss on tokens are those of the hidden states below the last layer. The last layer can attend to these
        states from the last token, whose score the reranker returns. This is a forward hook because under ZeRO-3 the weights are
        gathered only inside the wrapped model's forward pass.
        """
        states = self.states
        if self.settings.packed:
            self.last_scores = classifier.score(states).squeeze(-1)
        if outputs.hidden_states is not None:
            self.token_scores = classifier.score(self.norm(outputs.hidden_states[-2])).squeeze(-1)
        self.states = states  # not those that the head has just scored

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

    def scores(self, model: Any, batch: dict[str, Any], hidden: bool = False) -> torch.Tensor:
        """[programs] the score of each program, as the exported classifier gives it. `hidden`: whether the per-token scores are computed too."""
        given = {
            name: batch[name] for name in ("input_ids", "attention_mask", "position_ids") if name in batch
        }
        packed = "programs" in batch
        if packed:
            given["attention_mask"] = packed_mask(
                batch["attention_mask"], batch["programs"], self.model.dtype
            )
        outputs = model(**given, output_hidden_states=hidden, use_cache=False)
        if not packed:
            return outputs.logits.squeeze(-1)
        return self.last_scores[batch["row"], batch["scored"]]

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """`last_loss` x loss of the last tokens' scores + `token_loss` x loss of the pooled per-token scores + the penalties and
        the language model's loss, each with its weight."""
        settings = self.settings
        mask, margin = inputs["completion_mask"], inputs["margin"]
        last = self.scores(model, inputs, hidden=bool(settings.token_loss))
        right, wrong = last.chunk(2)
        row = inputs.get("row", slice(None))
        loss = settings.last_loss * pair_loss(last, margin)
        if settings.center:
            loss = loss + settings.center * ((right + wrong) ** 2).mean()
        if settings.magnitude:
            loss = loss + settings.magnitude * (right**2 + wrong**2).mean() / 2
        if settings.token_loss:
            pooled = (self.token_scores[row] * mask).sum(1)
            if settings.token_pool == "mean":  # noqa: S105
                pooled = pooled / mask.sum(1)
            loss = loss + settings.token_loss * pair_loss(pooled, margin)
        if settings.lm_loss:
            states, ids = self.states[row], inputs["input_ids"][row]
            chosen = slice(len(margin))
            loss = loss + settings.lm_loss * completion_loss(
                states[chosen], ids[chosen], mask[chosen], self.head.weight
            )
        self.states = self.last_scores = self.token_scores = None
        outputs = SequenceClassifierOutput(logits=last.detach()[:, None])
        super().compute_loss(
            lambda **_: outputs, {"attention_mask": inputs["attention_mask"]}, False, num_items_in_batch
        )
        return (loss, outputs) if return_outputs else loss

    def measure(self, model: Any, batch: dict[str, Any]) -> torch.Tensor:
        """[pairs, 3] the weight 1, whether the right program has the higher score (1 or 0), and the loss without margin."""
        right, wrong = self.scores(model, batch).float().chunk(2)
        return torch.stack([torch.ones_like(right), (right > wrong).float(), -logsigmoid(right - wrong)], 1)


def pair_loss(scores: torch.Tensor, margin: torch.Tensor) -> torch.Tensor:
    """Mean of -log sigmoid(right - wrong - margin) over the pairs of a batch, a scalar.

    scores  [2 x pairs] the scores of the right programs, then those of the wrong programs
    margin  [pairs] in units of the score
    """
    right, wrong = scores.chunk(2)
    return -logsigmoid(right - (wrong + margin)).mean()


def completion_loss(
    states: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor, head: torch.Tensor
) -> torch.Tensor:
    """Mean over rows of the mean of -log p(token | tokens before) over the tokens in `mask`, in nats, a scalar.

    states  [rows, longest, hidden] final states; the state before a token predicts it
    ids     [rows, longest] token ids
    mask    [rows, longest] 1 for the completion's tokens
    head    [vocabulary, hidden] weights of the language model's head
    """
    row, at = mask[:, 1:].nonzero(as_tuple=True)
    nats = -chosen_logprobs(states[row, at], head, None, ids[row, at + 1])
    return (nats / mask[:, 1:].sum(1)[row]).sum() / len(mask)


if __name__ == "__main__":
    child_main(train)
