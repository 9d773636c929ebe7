"""Stages B and E: trains the reranker, correct over incorrect, with TRL's RewardTrainer.

Loss: pairwise Bradley-Terry, -log sigmoid(score(chosen) - score(rejected)) (Christiano et al. 2017), on the last token's
score, plus `token_loss` times the same loss on the summed scores of the completion's tokens, one layer below. The second
term tells the model *where* a program goes wrong; the exported model is a plain classifier that reads the last token.
Run as a child process: `python -m selftrain.training.reward resolved.json`.
"""

from typing import Any

import torch
from datasets import Dataset
from torch.nn.functional import logsigmoid
from trl import RewardConfig as TrlRewardConfig
from trl import RewardTrainer

from selftrain.config import RuntimeConfig
from selftrain.errors import DataError, UsageError
from selftrain.launch import Child, child_main
from selftrain.models import (
    digest_weights,
    encode_completion,
    encode_prompt,
    load_classifier,
    load_tokenizer,
    pad,
)
from selftrain.records import Pair, read_records
from selftrain.stage import Outcome
from selftrain.stages.train_reward import RewardSlice
from selftrain.training.common import (
    Progress,
    bucketed_order,
    curve,
    last_checkpoint,
    save_model,
    trainer_arguments,
)


def train(child: Child) -> Outcome:
    """Train, and write the reranker and its tokenizer into the child's folder."""
    config = RewardSlice.model_validate(child.config)
    settings = config.reward
    runtime = RuntimeConfig.model_validate(child.runtime)
    pairs = read_records(child.inputs["pairs"] / "pairs.parquet", Pair)
    tokenizer = load_tokenizer(child.inputs["start"])
    rows = [tokens(tokenizer, pair) for pair in pairs]
    kept = [row for row in rows if _longest(row) <= settings.max_tokens]
    if not kept:
        raise DataError(
            f"none of the {len(pairs)} pairs fits reward.max_tokens={settings.max_tokens}: there is nothing to learn from. "
            "Pairs need problems with passing and failing candidates: sample more, or train the generator longer"
        )
    torch.manual_seed(config.seed)
    model = load_classifier(child.inputs["start"], fresh_head=not config.continues)
    model.config.pad_token_id = tokenizer.pad_token_id
    order = bucketed_order([_longest(row) for row in kept], settings.epochs, settings.batch_size, config.seed)
    checkpoints = child.private / "checkpoints"
    arguments = TrlRewardConfig(
        **trainer_arguments(settings, runtime, config.seed, checkpoints, runtime.processes * runtime.nodes),
        center_rewards_coefficient=settings.center or None,
        remove_unused_columns=False,
    )
    trainer = TokenRewardTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(kept).select(order),
        processing_class=tokenizer,
        data_collator=Collator(tokenizer.pad_token_id),
        callbacks=[Progress()],
        token_loss=settings.token_loss,
    )
    trainer.train(resume_from_checkpoint=last_checkpoint(checkpoints))
    save_model(trainer, child.folder)
    steps = curve(trainer.state.log_history, ["loss", "accuracy", "margin"])
    metrics = {
        "pairs": len(kept),
        "too_long": len(rows) - len(kept),
        "steps": trainer.state.global_step,
        "loss": steps[-1]["loss"] if steps else None,
        "accuracy": steps[-1].get("accuracy") if steps else None,
        "curve": steps,
    }
    return Outcome(digest_weights(child.folder), metrics)


def tokens(tokenizer: Any, pair: Pair) -> dict[str, Any]:
    """Token ids of both programs behind their prompt, and the prompt's length."""
    prompt = encode_prompt(tokenizer, pair.prompt)
    return {
        "chosen_ids": prompt + encode_completion(tokenizer, pair.chosen),
        "rejected_ids": prompt + encode_completion(tokenizer, pair.rejected),
        "prompt_length": len(prompt),
    }


def _longest(row: dict[str, Any]) -> int:
    return max(len(row["chosen_ids"]), len(row["rejected_ids"]))


class Collator:
    """Chosen rows first, rejected rows after them, as RewardTrainer wants, with a mask of the completions' tokens."""

    def __init__(self, pad_token_id: int) -> None:
        self.pad_token_id = pad_token_id

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """`input_ids`, `attention_mask`, `completion_mask`: [2 * len(rows), longest]."""
        ids = [row["chosen_ids"] for row in rows] + [row["rejected_ids"] for row in rows]
        heads = [row["prompt_length"] for row in rows] * 2
        return {
            "input_ids": pad(ids, self.pad_token_id),
            "attention_mask": pad([[1] * len(row) for row in ids], 0),
            "completion_mask": pad(
                [[0] * head + [1] * (len(row) - head) for row, head in zip(ids, heads, strict=True)], 0
            ),
        }


class TokenRewardTrainer(RewardTrainer):
    """RewardTrainer with the loss on summed per-token scores beside its own."""

    def __init__(self, *args: Any, token_loss: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.token_loss = token_loss
        base = self.model.base_model
        self.norm: Any = getattr(base, "norm", None) or getattr(base, "ln_f", None)
        if token_loss and self.norm is None:
            raise UsageError(
                f"reward.token_loss needs a model with a final norm (`norm` or `ln_f`), {type(base).__name__} has none; set it to 0"
            )

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = ["chosen_ids", "rejected_ids", "prompt_length"]

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """TRL's loss on the last token + token_loss * the same on summed token scores.

        Those are read one layer below the last, by the same norm and head: what is known there about each token, the
        last layer can gather into the last token, where it counts.
        """
        mask = inputs.pop("completion_mask")
        inputs["output_hidden_states"] = bool(self.token_loss)
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        if self.token_loss:
            scores = self.model.score(self.norm(outputs.hidden_states[-2])).squeeze(-1)
            chosen, rejected = (scores * mask).sum(1).chunk(2)
            loss = loss - self.token_loss * logsigmoid(chosen - rejected).mean()
        return (loss, outputs) if return_outputs else loss


if __name__ == "__main__":
    child_main(train)
