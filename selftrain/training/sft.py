"""Stage A: fine-tunes the generator on (prompt, response) pairs with TRL's SFTTrainer; the result is the SFT policy.

The loss covers the response's tokens only. If `evaluation_steps` is set, this loss is also measured on the validation split.
Run as a child process: `python -m selftrain.training.sft resolved.json`.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import transformers
from torch.nn.functional import cross_entropy
from transformers.trainer_pt_utils import get_model_param_count
from trl import SFTConfig as TrlSftConfig
from trl import SFTTrainer

from selftrain.config import SftConfig
from selftrain.errors import DataError
from selftrain.launch.launch import Child, child_main
from selftrain.launch.ranks import rank, world_size
from selftrain.models import lora
from selftrain.models.models import (
    load_generator,
    load_tokenizer,
    make_random,
    make_tiny,
    train_tokenizer,
)
from selftrain.models.prompts import encode_answers, encode_problem, set_style
from selftrain.models.weights import digest_weights
from selftrain.records import Problem, read_records
from selftrain.stage import Outcome
from selftrain.stages.sft import SftSlice
from selftrain.training import common
from selftrain.training.callbacks import Goal
from selftrain.training.common import Examples, TrainerMixin, start_deepspeed, trainer_arguments


def train(child: Child) -> Outcome:
    """Train the generator, and write it and its tokenizer into the child's folder."""
    config = SftSlice.model_validate(child.config)
    settings = config.sft
    if not settings.epochs:
        return _untrained(config, child)
    problems = read_records(child.inputs["problems"] / "problems.parquet", Problem)
    pairs, held_out = answers(problems, "sft"), answers(problems, "validation")
    if not pairs:
        raise DataError("no problem of the sft split has a response; SFT needs answers to learn from")
    tokenizer = _tokenizer(config, [text for prompt, response, _ in pairs for text in (prompt, response)])
    examples = _examples(tokenizer, pairs, held_out, settings)
    trainer, parameters = _trainer(config, child, tokenizer, examples)
    goal = Goal("loss", higher=False, steps=settings.evaluation_steps, patience=settings.patience)
    trained = common.train(trainer, goal, child.runtime, "sft")
    base = partial(_model, config, tokenizer) if settings.lora else None
    common.export(trained.checkpoint, child.folder, tokenizer, base)
    metrics = {
        "parameters": parameters,
        "examples": len(examples.trained),
        "too_long": examples.too_long,
        "tokens_per_example": sum(map(_length, examples.trained)) / len(examples.trained),
        **trained.metrics(goal, ["loss"]),
    }
    return Outcome(digest_weights(child.folder), metrics)


def _untrained(config: SftSlice, child: Child) -> Outcome:
    """Write the pretrained model as it is."""
    if rank() > 0:
        return Outcome("")
    tokenizer = _tokenizer(config, [])
    model = _model(config, tokenizer)
    model.save_pretrained(child.folder)
    tokenizer.save_pretrained(child.folder)
    return Outcome(digest_weights(child.folder), {"parameters": get_model_param_count(model), "examples": 0})


def _examples(
    tokenizer: Any,
    pairs: Sequence[tuple[str, str, str]],
    held_out: Sequence[tuple[str, str, str]],
    settings: SftConfig,
) -> Examples:
    """Tokenise the rows to train and to evaluate on. Raises DataError where no row is left to train or evaluate on."""
    rows = [tokens(tokenizer, *pair) for pair in pairs]
    kept = [row for row in rows if _length(row) <= settings.max_tokens]
    if not kept:
        raise DataError(
            f"every prompt + response is longer than sft.max_tokens={settings.max_tokens}; raise it"
        )
    evaluated = [tokens(tokenizer, *pair) for pair in held_out] if settings.evaluation_steps else []
    evaluated = [row for row in evaluated if _length(row) <= settings.max_tokens]
    if settings.evaluation_steps and not evaluated:
        raise DataError(
            f"sft.evaluation_steps={settings.evaluation_steps} needs problems of the validation split with a response of "
            f"at most sft.max_tokens={settings.max_tokens} tokens, prompt included, and there is none; set it to null"
        )
    return Examples(kept, evaluated, len(rows) - len(kept))


def _trainer(config: SftSlice, child: Child, tokenizer: Any, examples: Examples) -> tuple["Trainer", int]:
    """Load the model and create its trainer; returns the trainer and the number of the model's parameters, without adapters."""
    settings = config.sft
    arguments = TrlSftConfig(
        **trainer_arguments(
            settings, child.runtime, config.seed, child.private / "checkpoints", world_size()
        ),
        shuffle_dataset=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    start_deepspeed(child.runtime)
    torch.manual_seed(config.seed)
    model = _model(config, tokenizer)
    parameters = get_model_param_count(model)
    if settings.lora:
        model = lora.add(model, settings.lora)
    datasets = examples.datasets(settings, config.seed, _length)
    trainer = Trainer(model=model, args=arguments, processing_class=tokenizer, **datasets)
    return trainer, parameters


def _length(row: dict[str, Any]) -> int:
    return len(row["input_ids"])


def answers(problems: Sequence[Problem], split: str) -> list[tuple[str, str, str]]:
    """(prompt, response, language) of a split's problems that have a response."""
    return [
        (p.prompt, p.response, p.language) for p in problems if p.split == split and p.response is not None
    ]


def _source(config: SftSlice) -> dict[str, Any]:
    """Options for `from_pretrained` that load exactly the weights that the cache key identifies."""
    # The commit, even if the branch has moved since.
    return config.model.model_copy(update={"revision": config.base_digest}).options


def _tokenizer(config: SftSlice, texts: list[str]) -> Any:
    """The tokenizer of `model.base`, with the run's prompt style; if there is no base, a new tokenizer trained on `texts`."""
    if config.model.base is None:
        return train_tokenizer(texts, config.model.vocabulary)
    tokenizer = load_tokenizer(config.model.base, **_source(config))
    set_style(tokenizer, config.model.prompt_style)
    return tokenizer


def _model(config: SftSlice, tokenizer: Any) -> Any:
    """The model before SFT."""
    if config.model.base is None:
        return make_tiny(config.model, tokenizer)
    if config.model.random:
        return make_random(transformers.AutoModelForCausalLM, config.model.base, **_source(config))
    return load_generator(config.model.base, **_source(config))


class Trainer(TrainerMixin, SFTTrainer):
    """SFTTrainer whose evaluation loss is the mean over the tokens of all responses."""

    measures = ("loss",)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """TRL's loss on GPUs; the loss of transformers' `Trainer` on CPU.

        TRL computes the logits in tiles, which saves GPU memory, and logs metrics that are not used here. On a CPU this costs
        a third of the time.
        """
        if not self.args.use_cpu:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        seen = self.accelerator.gather_for_metrics(inputs["attention_mask"].sum()).sum().item()
        self._total_train_tokens += seen
        self._metrics["train"]["num_tokens"] = [self._total_train_tokens]
        inputs["use_cache"] = False
        return transformers.Trainer.compute_loss(self, model, inputs, return_outputs, num_items_in_batch)

    def measure(self, model: Any, batch: dict[str, Any]) -> torch.Tensor:
        """[rows, 2] number of tokens in each row's response, and the sum of the losses of these tokens (nats)."""
        if not self.args.use_cpu:
            outputs = model(**batch, fused_lm_head=True)
            return torch.stack([outputs.label_mask.sum(1).float(), -outputs.log_probs.float().sum(1)], 1)
        # Use the forward pass of training: ZeRO-3 prefetches weights in the order that it recorded there.
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        labels = batch["labels"][:, 1:]
        logits = model(**inputs, use_cache=False).logits[:, :-1].float()
        losses = cross_entropy(logits.transpose(1, 2), labels, ignore_index=-100, reduction="none")
        return torch.stack([(labels != -100).sum(1).float(), losses.sum(1)], 1)


def tokens(tokenizer: Any, prompt: str, response: str, language: str) -> dict[str, list[int]]:
    """{"input_ids", "labels"} of prompt + response in the tokenizer's prompt style, [tokens] each; labels are -100 at the
    prompt's tokens."""
    head = encode_problem(tokenizer, prompt, language)
    [tail] = encode_answers(tokenizer, prompt, [response], language)
    return {"input_ids": head + tail, "labels": [-100] * len(head) + tail}


if __name__ == "__main__":
    child_main(train)
