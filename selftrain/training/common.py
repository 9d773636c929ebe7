"""What SFT and reward training share: the order of batches, the trainer's arguments, progress and resume."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import TrainerCallback

from selftrain.config import RuntimeConfig
from selftrain.errors import UsageError
from selftrain.launch import report_progress

SORT_WINDOW = 20
"""Batches that are sorted by length together: little padding, and still a random order."""
WHOLE = "whole"
"""Empty file in a checkpoint, written last."""


def bucketed_order(lengths: Sequence[int], epochs: float, batch_size: int, seed: int) -> list[int]:
    """Row numbers for `epochs` passes, such that each run of `batch_size` rows has similar lengths.

    The order depends on nothing but the arguments, so a resumed run sees the same batches. A short rest is dropped.
    """
    rng = random.Random(seed)
    needed = max(1, round(epochs * len(lengths) / batch_size)) * batch_size
    order: list[int] = []
    while len(order) < needed:
        rows = rng.sample(range(len(lengths)), len(lengths))
        window = SORT_WINDOW * batch_size
        rows = [
            row
            for at in range(0, len(rows), window)
            for row in sorted(rows[at : at + window], key=lambda i: lengths[i])
        ]
        batches = [rows[at : at + batch_size] for at in range(0, len(rows), batch_size)]
        full = [batch for batch in batches if len(batch) == batch_size]
        rng.shuffle(full)
        # A corpus smaller than one batch is repeated until it fills one.
        order += [row for batch in full for row in batch] or (rows * batch_size)[:batch_size]
    return order[:needed]


def trainer_arguments(
    config: Any, runtime: RuntimeConfig, seed: int, checkpoints: Path, world: int
) -> dict[str, Any]:
    """Arguments for TRL's trainers that carry out `config` on `world` processes."""
    micro = min(config.micro_batch_size, max(1, config.batch_size // world))
    if config.batch_size % (micro * world):
        raise UsageError(
            f"batch_size {config.batch_size} cannot be split into micro batches of {micro} on {world} processes; "
            f"choose a multiple of {micro * world}"
        )
    cuda = runtime.device == "cuda"
    return {
        "output_dir": str(checkpoints),
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": config.batch_size // (micro * world),
        "num_train_epochs": 1,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": config.warmup_steps,
        "weight_decay": config.weight_decay,
        "adam_beta2": 0.98,
        "max_grad_norm": 1.0,
        "train_sampling_strategy": "sequential",
        "save_steps": config.checkpoint_steps,
        "save_total_limit": 2,  # the newest may be a part when the process is killed
        "logging_steps": 10,
        "seed": seed,
        "bf16": cuda,
        "gradient_checkpointing": cuda,
        "use_cpu": not cuda,
        "dataloader_pin_memory": cuda,
        "deepspeed": runtime.deepspeed,
        "report_to": "none",
        "disable_tqdm": True,
        "max_length": None,  # longer rows were left out before
    }


class Progress(TrainerCallback):
    """Hands the trainer's steps to the parent, and marks its checkpoints when they are whole."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Reports each step."""
        last = state.log_history[-1] if state.log_history else {}
        figures = {name: last[name] for name in ("loss", "accuracy") if name in last}
        report_progress(state.global_step, state.max_steps, "steps", **figures)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Marks the checkpoint once every process has written its part."""
        PartialState().wait_for_everyone()
        if state.is_world_process_zero:
            Path(args.output_dir, f"checkpoint-{state.global_step}", WHOLE).touch()


def save_model(trainer: Any, folder: Path) -> None:
    """Write the trained model and its tokenizer; when this returns, in any process, all of it is there."""
    trainer.save_model(str(folder))
    trainer.accelerator.wait_for_everyone()
    (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle


def curve(log_history: Sequence[dict[str, Any]], names: Sequence[str]) -> list[dict[str, float]]:
    """The rows of a trainer's history that hold `names`, those columns and the step only."""
    return [
        {"step": row["step"], **{n: row[n] for n in names if n in row}}
        for row in log_history
        if names[0] in row
    ]


def last_checkpoint(folder: Path) -> str | None:
    """The newest whole checkpoint in `folder`, or None; a killed process may have left a part of a newer one."""
    whole = [path.parent for path in folder.glob(f"checkpoint-*/{WHOLE}")]
    return str(max(whole, key=lambda path: int(path.name.rpartition("-")[2]))) if whole else None
