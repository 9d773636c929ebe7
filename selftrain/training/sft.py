"""Stage A: fine-tunes the generator on (prompt, response) with TRL's SFTTrainer; the result is the SFT policy.

Loss on the response's tokens only. Run as a child process: `python -m selftrain.training.sft resolved.json`.
"""

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from trl import SFTConfig as TrlSftConfig
from trl import SFTTrainer

from selftrain.config import RuntimeConfig
from selftrain.errors import DataError
from selftrain.launch import Child, child_main
from selftrain.models import (
    digest_weights,
    encode_completion,
    encode_prompt,
    load_generator,
    load_tokenizer,
    make_tiny,
    train_tokenizer,
)
from selftrain.records import Problem, read_records
from selftrain.stage import Outcome
from selftrain.stages.sft import SftSlice
from selftrain.training.common import (
    Progress,
    bucketed_order,
    curve,
    last_checkpoint,
    save_model,
    trainer_arguments,
)


def train(child: Child) -> Outcome:
    """Train, and write the model and its tokenizer into the child's folder."""
    config = SftSlice.model_validate(child.config)
    runtime = RuntimeConfig.model_validate(child.runtime)
    problems = read_records(child.inputs["problems"] / "problems.parquet", Problem)
    pairs = [(p.prompt, p.response) for p in problems if p.split == "sft" and p.response is not None]
    if not pairs:
        raise DataError("no problem of the sft split has a response; SFT needs answers to learn from")
    torch.manual_seed(config.seed)
    model, tokenizer = _start(config, [text for pair in pairs for text in pair])
    rows = [tokens(tokenizer, prompt, response) for prompt, response in pairs]
    kept = [row for row in rows if len(row["input_ids"]) <= config.sft.max_tokens]
    if not kept:
        raise DataError(
            f"every prompt + response is longer than sft.max_tokens={config.sft.max_tokens}; raise it"
        )
    order = bucketed_order(
        [len(row["input_ids"]) for row in kept], config.sft.epochs, config.sft.batch_size, config.seed
    )
    checkpoints = child.private / "checkpoints"
    arguments = TrlSftConfig(
        **trainer_arguments(config.sft, runtime, config.seed, checkpoints, runtime.processes * runtime.nodes),
        shuffle_dataset=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(kept).select(order),
        processing_class=tokenizer,
        callbacks=[Progress()],
    )
    trainer.train(resume_from_checkpoint=last_checkpoint(checkpoints))
    save_model(trainer, child.folder)
    losses = curve(trainer.state.log_history, ["loss"])
    metrics = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "examples": len(kept),
        "too_long": len(rows) - len(kept),
        "tokens_per_example": sum(len(row["input_ids"]) for row in kept) / len(kept),
        "steps": trainer.state.global_step,
        "loss": losses[-1]["loss"] if losses else None,
        "curve": losses,
    }
    return Outcome(digest_weights(child.folder), metrics)


def _start(config: SftSlice, texts: list[str]) -> tuple[Any, Any]:
    """The model before SFT and its tokenizer."""
    if config.model.base is None:
        tokenizer = train_tokenizer(texts, config.model.vocabulary)
        return make_tiny(config.model, tokenizer), tokenizer
    options: dict[str, Any] = {}
    if config.model.gguf_file:
        options["gguf_file"] = config.model.gguf_file
    if not Path(config.model.base).is_dir():
        options["revision"] = (
            config.base_digest
        )  # the commit that the key holds, whatever the branch is at by now
    return load_generator(config.model.base, **options), load_tokenizer(config.model.base, **options)


def tokens(tokenizer: Any, prompt: str, response: str) -> dict[str, list[int]]:
    """Input ids of prompt + response, and labels that leave the prompt out."""
    head, tail = encode_prompt(tokenizer, prompt), encode_completion(tokenizer, response)
    return {"input_ids": head + tail, "labels": [-100] * len(head) + tail}


if __name__ == "__main__":
    child_main(train)
