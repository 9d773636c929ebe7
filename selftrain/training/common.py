"""What SFT and reward training share: the order of batches, the trainer's arguments, evaluation, checkpoints, the export.

A checkpoint is whole once the file `whole` is in it, which says how it was written. What is exported is always a whole
checkpoint: the last one, or the best where there is evaluation, which is kept until the end. So a run that is killed, even
after its last step, ends with what an undisturbed one ends with.
"""

import collections
import itertools
import json
import math
import random
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from torch import Tensor
from transformers import PrinterCallback, TrainerCallback

from selftrain.config import RuntimeConfig
from selftrain.errors import UsageError
from selftrain.launch.launch import hold, report_progress
from selftrain.launch.ranks import world_size
from selftrain.models import lora
from selftrain.models.deepspeed_ops import start_distributed
from selftrain.models.models import LARGEST_WEIGHT, all_sound
from selftrain.store.checkpoints import WHOLE, anew, step_of, whole

SORT_WINDOW = 20
"""Batches that are sorted by length together: little padding, and still a random order."""
CURVE = 10
"""Steps that make one point of a curve, in runs of at least ten points."""
MODEL_FILES = ("config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json")


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
        "logging_nan_inf_filter": False,  # it would log a loss that is not finite as 0
        "seed": seed,
        "bf16": cuda,
        "gradient_checkpointing": runtime.recomputes,
        "use_cpu": not cuda,
        "dataloader_pin_memory": cuda,
        "deepspeed": deepspeed_settings(runtime),
        "report_to": "none",
        "disable_tqdm": True,
        "max_length": None,  # longer rows were left out before
    }


def deepspeed_settings(runtime: RuntimeConfig) -> dict[str, Any] | None:
    """The content of the DeepSpeed JSON file that the runtime names, or None; UsageError where it is none."""
    if runtime.deepspeed is None:
        return None
    try:
        settings = json.loads(Path(runtime.deepspeed).read_bytes())
        zero = settings["zero_optimization"]
        stage = zero["stage"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"runtime.deepspeed: {runtime.deepspeed} is no DeepSpeed JSON file with zero_optimization.stage: {error!r}"
        ) from error
    if stage not in (1, 2, 3):
        raise UsageError(
            f"runtime.deepspeed: {runtime.deepspeed}: expected ZeRO stage 1, 2 or 3, got {stage!r}"
        )
    if stage == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True  # checkpoints hold whole models
    return dict(settings)


def start_deepspeed(runtime: RuntimeConfig) -> None:
    """Make DeepSpeed ready for models that are split up while they load; after the trainer's arguments, before the model."""
    if runtime.deepspeed:
        start_distributed(runtime.device)


# Evaluation


@dataclass(frozen=True)
class Goal:
    """What is evaluated while training, and when it ends.

    metric   its name, without `eval_`; of equal ones the earliest is the best
    higher   whether more is better
    steps    between evaluations, there is one after the last step too; None: no evaluation
    patience evaluations without a better one after which training stops
    """

    metric: str
    higher: bool
    steps: int | None
    patience: int

    def evaluations(self, history: Sequence[dict[str, Any]]) -> list[dict[str, float]]:
        """The evaluations in a trainer's history, as {step, metric}."""
        rows = [row for row in history if f"eval_{self.metric}" in row]
        return [{"step": row["step"], self.metric: row[f"eval_{self.metric}"]} for row in rows]

    def best(self, history: Sequence[dict[str, Any]]) -> int | None:
        """The step of the best evaluation, None without any."""
        worth = {
            row["step"]: row[self.metric] * (1 if self.higher else -1) for row in self.evaluations(history)
        }
        return int(max(worth, key=lambda step: (worth[step], -step))) if worth else None

    def should_stop(self, history: Sequence[dict[str, Any]]) -> bool:
        """Whether `patience` evaluations in a row were no better than the one before them."""
        best = self.best(history)
        return best is not None and sum(r["step"] > best for r in self.evaluations(history)) >= self.patience


class TrainerMixin:
    """A trainer whose evaluation is the mean of what `measure` gives, and whose checkpoints hold every tensor once, both
    the same on any number of processes."""

    measures: tuple[str, ...]

    def measure(self, model: Any, batch: dict[str, Any]) -> Tensor:
        """[rows, 1 + measures]: each row's weight, and its measures times that weight."""
        raise NotImplementedError

    def evaluate(self: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The means, as eval_NAME; they go into the history, and the callbacks hear of them."""
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
        if state_dict is not None:  # from DeepSpeed, which writes tied tensors under each of their names
            twice = dict(self.model.named_parameters(remove_duplicate=False)).keys()
            tied = twice - dict(self.model.named_parameters()).keys()
            state_dict = {name: tensor for name, tensor in state_dict.items() if name not in tied}
        super()._save(output_dir, state_dict)  # type: ignore[misc]


# Progress and checkpoints


class Progress(TrainerCallback):
    """Hands each step to the parent process."""

    def __init__(self) -> None:
        self.seen: collections.deque[tuple[float, float]] = collections.deque(maxlen=20)
        """(seconds, tokens so far over all processes) of the last steps."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Reports a step; evaluations and the summary at the end are none."""
        if "loss" not in logs:
            return
        figures = {name: logs[name] for name in ("loss", "accuracy") if name in logs}
        self.seen.append((time.monotonic(), logs["num_tokens"]))
        (then, before), (now, tokens) = self.seen[0], self.seen[-1]
        if now > then:
            figures["tokens_per_second"] = round((tokens - before) / (now - then))
        report_progress(state.global_step, state.max_steps, "steps", **figures)


class Finite(TrainerCallback):
    """Ends a training whose loss, gradients, evaluation or weights are no finite numbers, at the step where they are not.

    What it looks at is the same on every rank (losses and gradients over all of them), so that all ranks end.
    """

    FIGURES = ("loss", "grad_norm", "accuracy", "margin")

    def __init__(self, stage: str) -> None:
        self.stage = stage

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Looks at a step, or at an evaluation."""
        names = [name for name in logs if name in self.FIGURES or name.startswith("eval_")]
        if not all(math.isfinite(logs[name]) for name in names):
            self.end(state, ", ".join(f"{name.replace('_', ' ')} {logs[name]:.4g}" for name in names))

    def on_save(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Looks at the weights before a checkpoint is taken for whole."""
        if not all_sound(model):
            self.end(state, f"weights that are not finite, or beyond {LARGEST_WEIGHT:g}, after the step")

    def end(self, state: Any, found: str) -> None:
        """Raise UsageError with what was found."""
        rate = next(
            (row["learning_rate"] for row in reversed(state.log_history) if "learning_rate" in row), 0.0
        )
        setting = "sft" if self.stage == "sft" else "reward"
        raise UsageError(
            f"stage {self.stage} has gone bad at step {state.global_step} of {state.max_steps}: {found}, at learning rate "
            f"{rate:.4g}; expected finite numbers. Nothing of it is stored: lower {setting}.learning_rate, raise "
            f"{setting}.warmup_steps, or look for rows or start weights that are damaged"
        )


class Checkpoints(TrainerCallback):
    """Evaluates when it is time, keeps the newest checkpoints and the best one, and stops where nothing gets better."""

    def __init__(self, goal: Goal, runtime: RuntimeConfig, written_by: dict[str, int]) -> None:
        self.goal = goal
        self.keep = runtime.keep_checkpoints
        self.written_by = written_by

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Evaluates every `steps` steps and after the last."""
        if self.goal.steps:
            control.should_evaluate = (
                state.global_step % self.goal.steps == 0 or state.global_step >= state.max_steps
            )

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Saves the best so far, and stops after too many that are not."""
        stop = self.goal.should_stop(state.log_history)
        control.should_training_stop = control.should_training_stop or stop
        if stop or self.goal.best(state.log_history) == state.global_step:
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Marks the checkpoint once every process has written its part; only then older ones go."""
        PartialState().wait_for_everyone()
        if not state.is_world_process_zero:
            return
        folder = Path(args.output_dir)
        (folder / f"checkpoint-{state.global_step}" / WHOLE).write_text(json.dumps(self.written_by))
        newest = sorted(whole(folder).values(), key=step_of)[-self.keep :]
        kept = {folder / f"checkpoint-{self.goal.best(state.log_history)}", *newest}
        for path in set(folder.glob("checkpoint-*")) - kept:
            shutil.rmtree(path)


def last_checkpoint(folder: Path) -> str | None:
    """The newest whole checkpoint in `folder`, or None; a killed process may have left a part of a newer one."""
    found = whole(folder).values()
    return str(max(found, key=step_of)) if found else None


@dataclass(frozen=True)
class Trained:
    """How training went.

    checkpoint  the one to export
    history     the trainer's log, {step, ...} for each step and for each evaluation
    steps       optimizer steps that were made
    stopped     whether it ended before its time, by `Goal.should_stop`
    """

    checkpoint: Path
    history: list[dict[str, Any]]
    steps: int
    stopped: bool

    def metrics(self, goal: Goal, names: Sequence[str]) -> dict[str, Any]:
        """What the stage's manifest says of it: the mean of `names` over the last steps, their curve, evaluations."""
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
    """Train from the start or from the last whole checkpoint; the same in the end, bit for bit on one process.

    stage  what errors call it

    Raises UsageError where that checkpoint cannot be resumed from, and where training diverges.
    """
    plugin = trainer.accelerator.state.deepspeed_plugin
    written_by = {"processes": world_size(), "zero": plugin.zero_stage if plugin else 0}
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Progress())
    trainer.add_callback(Finite(stage))
    trainer.add_callback(Checkpoints(goal, runtime, written_by))
    folder = Path(trainer.args.output_dir)
    # One process looks, for all: over a network another one may see the folder as it was.
    [newest] = broadcast_object_list([last_checkpoint(folder)])
    if newest is not None:
        check_checkpoint(Path(newest), trainer.model, written_by)
    if newest is None or not _finished(_state(newest), goal):
        trainer.train(resume_from_checkpoint=newest)
        hold(trainer.model_wrapped)
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
    """Raise UsageError unless training of `model` can go on from `checkpoint`, to the same end as undisturbed.

    Without DeepSpeed any number of processes goes on from any other's; DeepSpeed splits up its optimizer's state.
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
    """Write a checkpoint's model and the tokenizer as an ordinary folder; when this returns, in any process, it is there.

    base  where the checkpoint holds adapters: loads the model that they are merged into
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
    """The means of `names` over every ten steps, or each step of a run of fewer than a hundred."""
    width = CURVE if len(rows) >= CURVE * CURVE else 1
    parts = [rows[at : at + width] for at in range(0, len(rows), width)]
    return [
        {"step": part[-1]["step"], **{name: _mean(part, name) for name in names}}
        for part in parts
        if len(part) == width
    ]


def _mean(rows: Sequence[dict[str, Any]], name: str) -> float:
    return math.fsum(row[name] for row in rows) / len(rows)
