"""What SFT and reward training share: the order of batches, the trainer's arguments, evaluation, checkpoints, the export.

A checkpoint is complete once it has the file `whole`, which records the number of processes. The exported model is always that
of a complete checkpoint: the last one, or with evaluation the best one. So a run that is killed, even after its last step, and
resumed ends with the weights of an undisturbed run.
"""

import itertools
import json
import math
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from torch import Tensor
from transformers import PrinterCallback

from selftrain.config import RuntimeConfig
from selftrain.errors import UsageError
from selftrain.launch.launch import keep_until_exit
from selftrain.launch.ranks import world_size
from selftrain.models import lora
from selftrain.models.deepspeed_ops import start_distributed
from selftrain.models.zero import deepspeed_settings
from selftrain.store.checkpoints import WHOLE, anew, step_of, whole
from selftrain.training.callbacks import Checkpoints, Finite, Goal, Progress

SORT_WINDOW = 20
"""Rows of this many batches are sorted by length together: little padding, and still a random order."""
CURVE = 10
"""Steps per point of a curve, where that gives at least ten points."""
MODEL_FILES = ("config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json")


def bucketed_order(lengths: Sequence[int], epochs: float, batch_size: int, seed: int) -> list[int]:
    """Row numbers for `epochs` passes, such that each run of `batch_size` rows has similar lengths.

    The order depends only on the arguments, so a resumed run sees the same batches. An incomplete last batch is dropped.
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


@dataclass(frozen=True)
class Examples:
    """Tokenised rows of at most `max_tokens` tokens.

    trained    to train on
    evaluated  to evaluate on while training; empty without evaluation
    too_long   rows left out of `trained`
    """

    trained: list[dict[str, Any]]
    evaluated: list[dict[str, Any]]
    too_long: int

    def datasets(self, config: Any, seed: int, length: Callable[[dict[str, Any]], int]) -> dict[str, Any]:
        """`train_dataset`, in the order of batches, and `eval_dataset` for a trainer; `length`: a row's tokens."""
        lengths = [length(row) for row in self.trained]
        order = bucketed_order(lengths, config.epochs, config.batch_size, seed)
        evaluated = Dataset.from_list(sorted(self.evaluated, key=length)) if self.evaluated else None
        return {"train_dataset": Dataset.from_list(self.trained).select(order), "eval_dataset": evaluated}


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
        "per_device_eval_batch_size": micro,
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
        "logging_steps": 1,  # so that a resumed run has the same curve
        "logging_nan_inf_filter": False,  # the filter logs a loss that is not finite as 0
        "seed": seed,
        "bf16": cuda,
        "gradient_checkpointing": runtime.recomputes,
        "use_cpu": not cuda,
        "dataloader_pin_memory": cuda,
        "deepspeed": deepspeed_settings(runtime),
        "report_to": "none",
        "disable_tqdm": True,
        "max_length": None,  # `Examples` has no longer rows
    }


def start_deepspeed(runtime: RuntimeConfig) -> None:
    """Start DeepSpeed where it is configured. Call it after making the trainer's arguments and before loading the model, which
    ZeRO stage 3 shards while it loads."""
    if runtime.deepspeed:
        start_distributed(runtime.device)


# Evaluation


class TrainerMixin:
    """A trainer that evaluates weighted means of `measure`, and whose checkpoints hold tied tensors once.

    Both are the same on any number of processes.
    """

    measures: tuple[str, ...]

    def measure(self, model: Any, batch: dict[str, Any]) -> Tensor:
        """[rows, 1 + measures] each row's weight, then its measures times that weight."""
        raise NotImplementedError

    def evaluate(self: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The weighted means {eval_NAME: mean}; also logged to the history and passed to the callbacks."""
        model = self.model_wrapped
        model.eval()
        sums = torch.zeros(1 + len(self.measures), dtype=torch.float64)
        with torch.no_grad():
            for batch in self.get_eval_dataloader():
                rows = self.measure(model, self._prepare_inputs(batch))
                sums += self.accelerator.gather_for_metrics(rows).double().sum(0).cpu()
        means = (sums[1:] / sums[0]).tolist()
        metrics = {f"eval_{name}": mean for name, mean in zip(self.measures, means, strict=True)}
        self.log(dict(metrics))
        model.train()
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _save(self: Any, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if state_dict is not None:  # DeepSpeed passes tied tensors under each of their names
            twice = dict(self.model.named_parameters(remove_duplicate=False)).keys()
            tied = twice - dict(self.model.named_parameters()).keys()
            state_dict = {name: tensor for name, tensor in state_dict.items() if name not in tied}
        super()._save(output_dir, state_dict)  # type: ignore[misc]


# Checkpoints


def last_checkpoint(folder: Path) -> str | None:
    """The newest complete checkpoint in `folder`, or None. A killed process may have left a newer, incomplete one."""
    found = whole(folder).values()
    return str(max(found, key=step_of)) if found else None


@dataclass(frozen=True)
class Trained:
    """The result of training.

    checkpoint  folder of the checkpoint to export
    history     the trainer's log, {"step", ...} for each step and each evaluation
    steps       number of optimizer steps
    stopped     whether it stopped early, by `Goal.should_stop`
    """

    checkpoint: Path
    history: list[dict[str, Any]]
    steps: int
    stopped: bool

    def metrics(self, goal: Goal, names: Sequence[str]) -> dict[str, Any]:
        """The stage's figures: the mean of `names` over the last CURVE steps, their curve, and the evaluations."""
        rows = [row for row in self.history if "loss" in row and "step" in row]
        found: dict[str, Any] = {"steps": self.steps}
        found |= {name: _mean(rows[-CURVE:], name) for name in names}
        found["curve"] = curve(rows, names)
        if goal.steps:
            found |= {
                "evaluations": goal.evaluations(self.history),
                "best_step": goal.best(self.history),
                "stopped_early": self.stopped,
            }
        return found


def train(trainer: Any, goal: Goal, runtime: RuntimeConfig, stage: str) -> Trained:
    """Train from the start or resume from the last complete checkpoint; both end with the same weights, bit-equal on one process.

    stage  its name, for errors

    Raises UsageError where the checkpoint does not fit, and where training diverges.
    """
    plugin = trainer.accelerator.state.deepspeed_plugin
    written_by = {"processes": world_size(), "zero": plugin.zero_stage if plugin else 0}
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Progress())
    trainer.add_callback(Finite(stage))
    trainer.add_callback(Checkpoints(goal, runtime, written_by))
    folder = Path(trainer.args.output_dir)
    # Rank 0 decides for all: over a network file system another rank may see an older state of the folder.
    [newest] = broadcast_object_list([last_checkpoint(folder)])
    if newest is not None:
        check_checkpoint(Path(newest), trainer.model, written_by)
    if newest is None or not _finished(_state(newest), goal):
        trainer.train(resume_from_checkpoint=newest)
        keep_until_exit(trainer.model_wrapped)
        newest = str(folder / f"checkpoint-{trainer.state.global_step}")
    state = _state(newest)
    history, steps = state["log_history"], state["global_step"]
    best = goal.best(history)
    return Trained(
        folder / f"checkpoint-{steps if best is None else best}", history, steps, steps < state["max_steps"]
    )


def _state(checkpoint: str) -> dict[str, Any]:
    return dict(json.loads(Path(checkpoint, "trainer_state.json").read_bytes()))


def _finished(state: dict[str, Any], goal: Goal) -> bool:
    return state["global_step"] >= state["max_steps"] or goal.should_stop(state["log_history"])


def check_checkpoint(checkpoint: Path, model: Any, written_by: dict[str, int]) -> None:
    """Raise UsageError unless training of `model` can resume from `checkpoint` with the same result as an undisturbed run.

    Without DeepSpeed the number of processes may differ; DeepSpeed shards the optimizer's state by rank.
    """
    before = json.loads((checkpoint / WHOLE).read_text())
    if before != written_by and (before["zero"] or written_by["zero"]):
        said = [f"{one['processes']} processes with ZeRO stage {one['zero']}" for one in (before, written_by)]
        raise UsageError(
            f"{checkpoint} was written by {said[0]} and cannot be resumed by {said[1]} (0: no DeepSpeed). "
            f"Set runtime.processes, runtime.nodes and runtime.deepspeed as before, or {anew(checkpoint.parent)}"
        )
    needed, known = lora.shapes(model), lora.shapes(model, twice=True)
    found: dict[str, list[int]] = {}
    for path in checkpoint.glob("*.safetensors"):
        found |= _shapes(path)
    names = sorted(needed.keys() | found.keys())
    if wrong := [name for name in names if name not in found or found[name] != known.get(name)]:
        raise UsageError(
            f"{checkpoint} is of another model: {wrong[0]} has the shape {found.get(wrong[0])} there and "
            f"{known.get(wrong[0])} here ({len(wrong)} tensors differ); {anew(checkpoint.parent)}"
        )


def _shapes(path: Path) -> dict[str, list[int]]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


# The result


def export(checkpoint: Path, folder: Path, tokenizer: Any, base: Callable[[], Any] | None) -> None:
    """Write a checkpoint's model and the tokenizer into `folder`. Called by every rank; returns when rank 0 has written.

    base  where the checkpoint holds adapters: a function that loads the model to merge them into
    """
    state = PartialState()
    if state.is_main_process:
        if base is not None:
            lora.from_folder(base, checkpoint).save_pretrained(folder)
        else:
            for path in itertools.chain.from_iterable(checkpoint.glob(name) for name in MODEL_FILES):
                shutil.copyfile(path, folder / path.name)
        tokenizer.save_pretrained(folder)
    state.wait_for_everyone()


def curve(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> list[dict[str, float]]:
    """The means of `names` over every CURVE steps; over each step where there are fewer than CURVE x CURVE."""
    width = CURVE if len(rows) >= CURVE * CURVE else 1
    parts = [rows[at : at + width] for at in range(0, len(rows), width)]
    return [
        {"step": part[-1]["step"], **{name: _mean(part, name) for name in names}}
        for part in parts
        if len(part) == width
    ]


def _mean(rows: Sequence[dict[str, Any]], name: str) -> float:
    return math.fsum(row[name] for row in rows) / len(rows)
