"""Code shared by SFT and reward training: batch order, trainer arguments, evaluation, checkpoints, export.

A checkpoint is complete once it has the file `whole`, which records the number of processes and the ZeRO stage that wrote it.
The exported model is always taken from a complete checkpoint: the best one if there are evaluations, else the last one. So a
run that is killed (even after its last step) and resumed exports the same weights as a run that was not interrupted.
"""

import itertools
import json
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
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
from selftrain.units import count_of

SORT_WINDOW = 20
"""Number of batches whose rows are sorted by length together. This keeps padding small and the order of batches random."""
CURVE = 10
"""Training steps averaged into one point of a curve; a curve with fewer than CURVE x CURVE steps has a point per step."""
MODEL_FILES = ("config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json")
"""Patterns of a checkpoint's files that make up the exported model."""


def bucketed_order(lengths: Sequence[int], epochs: float, batch_size: int, seed: int) -> list[int]:
    """Row numbers for `epochs` passes, ordered so that each batch of `batch_size` rows has similar lengths.

    The order is deterministic in the arguments, so a resumed run sees the same batches. The rows of an incomplete last batch are
    left out of a pass, other rows in each pass.
    """
    rng = random.Random(seed)
    needed = max(1, round(epochs * len(lengths) / batch_size)) * batch_size
    order: list[int] = []
    while len(order) < needed:
        rows = rng.sample(range(len(lengths)), len(lengths))
        # Before they are sorted: else the longest would be left out, in a corpus of one window the same in each pass.
        rows = rows[: len(rows) // batch_size * batch_size] or rows
        window = SORT_WINDOW * batch_size
        rows = [
            row
            for at in range(0, len(rows), window)
            for row in sorted(rows[at : at + window], key=lambda i: lengths[i])
        ]
        batches = [rows[at : at + batch_size] for at in range(0, len(rows), batch_size)]
        full = [batch for batch in batches if len(batch) == batch_size]
        rng.shuffle(full)
        # A corpus smaller than one batch is repeated until it fills a batch.
        order += [row for batch in full for row in batch] or (rows * batch_size)[:batch_size]
    return order[:needed]


@dataclass(frozen=True)
class Examples:
    """Tokenised rows of at most `max_tokens` tokens.

    trained    rows to train on
    evaluated  rows to evaluate on during training; empty without evaluation
    too_long   number of rows left out of `trained` because they have more than `max_tokens` tokens
    """

    trained: list[dict[str, Any]]
    evaluated: list[dict[str, Any]]
    too_long: int

    def datasets(self, config: Any, seed: int, length: Callable[[dict[str, Any]], int]) -> dict[str, Any]:
        """Keyword arguments for a trainer: `train_dataset`, in batch order (`bucketed_order`), and `eval_dataset`, or None.

        length  gives the number of tokens of a row
        """
        lengths = [length(row) for row in self.trained]
        order = bucketed_order(lengths, config.epochs, config.batch_size, seed)
        evaluated = Dataset.from_list(sorted(self.evaluated, key=length)) if self.evaluated else None
        return {"train_dataset": Dataset.from_list(self.trained).select(order), "eval_dataset": evaluated}


def trainer_arguments(
    config: Any, runtime: RuntimeConfig, seed: int, checkpoints: Path, world: int
) -> dict[str, Any]:
    """Arguments for TRL's trainers to train as `config` says on `world` processes.

    Raises UsageError where `batch_size` cannot be split evenly into micro batches on `world` processes.
    """
    micro = min(config.micro_batch_size, max(1, config.batch_size // world))
    if config.batch_size % (micro * world):
        raise UsageError(
            f"batch_size {config.batch_size} cannot be split into micro batches of {micro} on {count_of(world, 'process', 'processes')}; "
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
        "logging_nan_inf_filter": False,  # the filter would log a NaN or infinite loss as 0
        "seed": seed,
        "bf16": cuda or getattr(config, "compute_type", None) == "bfloat16",
        "activation_checkpointing": runtime.recomputes,
        "use_cpu": not cuda,
        "dataloader_pin_memory": cuda,
        "ddp_find_unused_parameters": False,  # every parameter is used; to look for others at each step costs time, and warns
        "deepspeed": deepspeed_settings(runtime),
        "report_to": "none",
        "disable_tqdm": True,
        "max_length": None,  # no truncation: `Examples` holds no row that is too long
    }


def start_deepspeed(runtime: RuntimeConfig) -> None:
    """Start DeepSpeed if it is configured.

    Call this after creating the trainer's arguments and before loading the model: ZeRO stage 3 shards a model while it loads.
    """
    if runtime.deepspeed:
        start_distributed(runtime.device)


# Evaluation


class TrainerMixin:
    """Mixin for a trainer: evaluates weighted means of `measure`, and saves tied tensors once per checkpoint.

    Evaluation results and the tensors in a checkpoint are the same on any number of processes.
    """

    measures: tuple[str, ...]
    """Names of the metrics that `measure` computes."""

    def measure(self, model: Any, batch: dict[str, Any]) -> Tensor:
        """[rows, 1 + len(measures)]: the weight of each row, then each of its metrics multiplied by the weight."""
        raise NotImplementedError

    def evaluate(self: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate and return {eval_NAME: weighted mean}; also adds them to the log history and passes them to the callbacks."""
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
        if state_dict is not None:  # DeepSpeed passes a tied tensor once under each of its names
            twice = dict(self.model.named_parameters(remove_duplicate=False)).keys()
            tied = twice - dict(self.model.named_parameters()).keys()
            state_dict = {name: tensor for name, tensor in state_dict.items() if name not in tied}
        super()._save(output_dir, state_dict)  # type: ignore[misc]


# Checkpoints


def last_checkpoint(folder: Path) -> str | None:
    """The newest complete checkpoint in `folder`, or None. Incomplete checkpoints of killed processes are ignored."""
    found = whole(folder).values()
    return str(max(found, key=step_of)) if found else None


@dataclass(frozen=True)
class Trained:
    """The result of training.

    checkpoint  folder of the checkpoint to export
    history     the trainer's log history, {"step", ...} for each step and each evaluation
    steps       number of optimizer steps
    stopped     whether training stopped early
    """

    checkpoint: Path
    history: list[dict[str, Any]]
    steps: int
    stopped: bool

    def metrics(self, goal: Goal, names: Sequence[str]) -> dict[str, Any]:
        """The stage's metrics: the mean of each of `names` over the last CURVE steps, their curves, and the evaluations."""
        rows = [row for row in self.history if "loss" in row and "step" in row]
        found: dict[str, Any] = {"steps": self.steps}
        found |= {name: fmean(row[name] for row in rows[-CURVE:]) for name in names}
        found["curve"] = curve(rows, names)
        if goal.steps:
            found |= {
                "evaluations": goal.evaluations(self.history),
                "best_step": goal.best(self.history),
                "stopped_early": self.stopped,
            }
        return found


def train(trainer: Any, goal: Goal, runtime: RuntimeConfig, stage: str) -> Trained:
    """Train, from the last complete checkpoint if there is one, else from the start.

    A resumed run ends with the same weights as an uninterrupted one; on a single process they are equal bit for bit.

    stage  the stage's name, for error messages

    Raises UsageError where the checkpoint does not match this run, and where training diverges.
    """
    plugin = trainer.accelerator.state.deepspeed_plugin
    written_by = {"processes": world_size(), "zero": plugin.zero_stage if plugin else 0}
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Progress())
    trainer.add_callback(Finite(stage))
    trainer.add_callback(Checkpoints(goal, runtime, written_by))
    folder = Path(trainer.args.output_dir)
    # Rank 0 decides for all ranks: over a network file system another rank may see an older state of the folder.
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
    """Raise UsageError unless `checkpoint` has the tensors of `model` and a layout that this run can resume from.

    Under DeepSpeed the number of processes and the ZeRO stage must be those in `written_by`, since the optimizer's state is
    sharded by rank. Without DeepSpeed the number of processes may differ.
    """
    before = json.loads((checkpoint / WHOLE).read_text())
    if before != written_by and (before["zero"] or written_by["zero"]):
        said = [
            f"{count_of(one['processes'], 'process', 'processes')} with ZeRO stage {one['zero']}"
            for one in (before, written_by)
        ]
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


# Export


def export(checkpoint: Path, folder: Path, tokenizer: Any, base: Callable[[], Any] | None) -> None:
    """Write a checkpoint's model and the tokenizer into `folder`. Every rank must call this; it returns once rank 0 has written.

    base  a function that loads the base model, into which the checkpoint's adapters are merged; None: no adapters
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
    """Means of `names`, one point per CURVE steps; one point per step where there are fewer than CURVE x CURVE steps."""
    width = CURVE if len(rows) >= CURVE * CURVE else 1
    parts = [rows[at : at + width] for at in range(0, len(rows), width)]
    return [
        {"step": part[-1]["step"], **{name: fmean(row[name] for row in part) for name in names}}
        for part in parts
        if len(part) == width
    ]
