"""Trainer callbacks for SFT and reward training: progress reports, early stopping, checks for NaN, checkpoints."""

import collections
import json
import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import TrainerCallback

from selftrain.config import RuntimeConfig
from selftrain.errors import UsageError
from selftrain.launch.launch import report_progress
from selftrain.models.weights import LARGEST_WEIGHT, all_sound
from selftrain.store.checkpoints import WHOLE, step_of, whole


@dataclass(frozen=True)
class Goal:
    """The metric that selects the best checkpoint, the evaluation interval, and the rule for early stopping.

    metric    name of the metric, without the prefix `eval_`; of equal values the earliest is the best
    higher    whether a higher value is better
    steps     steps between evaluations; there is also one after the last step; None: no evaluation
    patience  training stops after this many evaluations in a row without a better value
    """

    metric: str
    higher: bool
    steps: int | None
    patience: int

    def evaluations(self, history: Sequence[dict[str, Any]]) -> list[dict[str, float]]:
        """Extract the evaluations from a trainer's log history: [{"step", metric}]."""
        rows = [row for row in history if f"eval_{self.metric}" in row]
        return [{"step": row["step"], self.metric: row[f"eval_{self.metric}"]} for row in rows]

    def best(self, history: Sequence[dict[str, Any]]) -> int | None:
        """The step of the best evaluation; None without evaluations."""
        worth = {
            row["step"]: row[self.metric] * (1 if self.higher else -1) for row in self.evaluations(history)
        }
        return int(max(worth, key=lambda step: (worth[step], -step))) if worth else None

    def should_stop(self, history: Sequence[dict[str, Any]]) -> bool:
        """Whether the last `patience` evaluations were no better than the best before them."""
        best = self.best(history)
        return best is not None and sum(r["step"] > best for r in self.evaluations(history)) >= self.patience


class Progress(TrainerCallback):
    """Reports each training step to the parent process."""

    def __init__(self) -> None:
        self.seen: collections.deque[tuple[float, float]] = collections.deque(maxlen=20)
        """The last steps: (monotonic time in seconds, tokens processed by all ranks since the start)."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Report a step's metrics. Logs of evaluations and the final summary have no `loss` and are ignored."""
        if "loss" not in logs:
            return
        figures = {name: logs[name] for name in ("loss", "accuracy") if name in logs}
        self.seen.append((time.monotonic(), logs["num_tokens"]))
        (then, before), (now, tokens) = self.seen[0], self.seen[-1]
        if now > then:
            figures["tokens_per_second"] = round((tokens - before) / (now - then))
        report_progress(state.global_step, state.max_steps, "steps", **figures)


class Finite(TrainerCallback):
    """Ends training at the first step whose loss, gradient norm, evaluation or weights are not finite.

    The metrics that are checked are reduced over all ranks, so every rank sees the same values and all ranks end together.
    """

    FIGURES = ("loss", "grad_norm", "accuracy", "margin")

    def __init__(self, stage: str) -> None:
        self.stage = stage

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Check the metrics of a step or an evaluation."""
        names = [name for name in logs if name in self.FIGURES or name.startswith("eval_")]
        if not all(math.isfinite(logs[name]) for name in names):
            self.end(state, ", ".join(f"{name.replace('_', ' ')} {logs[name]:.4g}" for name in names))

    def on_save(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Check the weights before the checkpoint is marked as complete."""
        if not all_sound(model):
            self.end(state, f"weights that are not finite, or beyond {LARGEST_WEIGHT:g}, after the step")

    def end(self, state: Any, found: str) -> None:
        """Raise UsageError; `found` is the text that says which values are not finite."""
        rate = next(
            (row["learning_rate"] for row in reversed(state.log_history) if "learning_rate" in row), 0.0
        )
        setting = "sft" if self.stage == "sft" else "reward"
        raise UsageError(
            f"stage {self.stage} diverged at step {state.global_step} of {state.max_steps}: {found}, at learning rate "
            f"{rate:.4g}; expected finite numbers. Nothing is stored: lower {setting}.learning_rate, raise "
            f"{setting}.warmup_steps, or check rows and start weights for damage"
        )


class Checkpoints(TrainerCallback):
    """Schedules evaluations, stops training early, and deletes all checkpoints but the newest ones and the best one.

    written_by  number of processes and ZeRO stage of this run, stored in each checkpoint
    """

    def __init__(self, goal: Goal, runtime: RuntimeConfig, written_by: dict[str, int]) -> None:
        self.goal = goal
        self.keep = runtime.keep_checkpoints
        self.written_by = written_by

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Request an evaluation every `goal.steps` steps and after the last step."""
        if self.goal.steps:
            control.should_evaluate = (
                state.global_step % self.goal.steps == 0 or state.global_step >= state.max_steps
            )

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save a checkpoint if this evaluation is the best so far; stop training where `Goal.should_stop` says so."""
        stop = self.goal.should_stop(state.log_history)
        control.should_training_stop = control.should_training_stop or stop
        if stop or self.goal.best(state.log_history) == state.global_step:
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Mark the checkpoint as complete once every rank has written its part, then delete older checkpoints."""
        PartialState().wait_for_everyone()
        if not state.is_world_process_zero:
            return
        folder = Path(args.output_dir)
        (folder / f"checkpoint-{state.global_step}" / WHOLE).write_text(json.dumps(self.written_by))
        newest = sorted(whole(folder).values(), key=step_of)[-self.keep :]
        kept = {folder / f"checkpoint-{self.goal.best(state.log_history)}", *newest}
        for path in set(folder.glob("checkpoint-*")) - kept:
            shutil.rmtree(path)
