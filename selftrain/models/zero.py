"""Reads the DeepSpeed JSON file that `runtime.deepspeed` names; does not import torch."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selftrain.config import RuntimeConfig
from selftrain.errors import UsageError
from selftrain.units import listed

OURS = (
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "gradient_clipping",
)
"""Entries that the run's config determines. Without them DeepSpeed would ask for a batch size, or clip no gradient; with other
values than the config's the trainers of SFT and of the reranker end with an exception."""


def deepspeed_settings(runtime: RuntimeConfig) -> dict[str, Any] | None:
    """DeepSpeed's settings for training: the content of the file `runtime.deepspeed`; None where that setting is null.

    The entries in `OURS` are taken from the config of the run. For ZeRO stage 3 the settings also say that checkpoints hold
    unsharded models.

    Raises UsageError where the file has no `zero_optimization.stage`, the stage is not 1, 2 or 3, or an entry in `OURS` is set.
    """
    if runtime.deepspeed is None:
        return None
    try:
        settings = json.loads(Path(runtime.deepspeed).read_bytes())
        zero = settings["zero_optimization"]
        stage = zero["stage"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"runtime.deepspeed: {runtime.deepspeed} is not DeepSpeed's JSON with zero_optimization.stage: {error!r}"
        ) from error
    if stage not in (1, 2, 3):
        raise UsageError(
            f"runtime.deepspeed: {runtime.deepspeed}: expected ZeRO stage 1, 2 or 3, got {stage!r}"
        )
    if fixed := [name for name in OURS if settings.get(name, "auto") != "auto"]:
        raise UsageError(
            f'runtime.deepspeed: {runtime.deepspeed}: expected no {listed(fixed)}, or "auto": batch sizes and the gradient\'s largest '
            "norm are those of the run's config"
        )
    if stage == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True  # checkpoints hold unsharded models
    return dict.fromkeys(OURS, "auto") | settings


@dataclass(frozen=True)
class Zero:
    """The settings that determine how much memory a rank needs; stage 0 means training without DeepSpeed."""

    stage: int = 0
    offload_optimizer: bool = False
    offload_param: bool = False


def zero_of(runtime: RuntimeConfig) -> Zero:
    """The ZeRO stage and whether DeepSpeed offloads. Raises UsageError as `deepspeed_settings` does."""
    settings = deepspeed_settings(runtime)
    if settings is None:
        return Zero()
    zero = settings["zero_optimization"]
    offloaded = {
        name: (zero.get(name) or {}).get("device", "none") != "none"
        for name in ("offload_optimizer", "offload_param")
    }
    return Zero(zero["stage"], **offloaded)
