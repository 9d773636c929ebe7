"""Arguments of the trainer (settings and models), and the checks of its batch sizes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selftrain.config import PPOConfig
from selftrain.errors import UsageError
from selftrain.training.ppo.rollout import Rollouts


@dataclass(frozen=True)
class TrainerSettings:
    """The trainer's settings.

    max_new_tokens  maximum length of a completion, tokens
    ends            ids of the tokens that end a completion
    checkpoints     folder to save checkpoints to and to resume from; None: no checkpoints
    keep            number of checkpoints that are kept
    tokenizer       the policy's; needed where problems have stop texts
    stops           stop texts of each problem, those of the probe's problems last; empty: no problem has any
    """

    config: PPOConfig
    seed: int
    max_new_tokens: int
    ends: Sequence[int]
    checkpoints: Path | None = None
    keep: int = 1
    tokenizer: Any = None
    stops: Sequence[Sequence[str]] = ()


@dataclass(frozen=True)
class Models:
    """The trainer's models.

    policy       causal language model; training changes its weights in place
    reference    causal language model to which the KL is computed; None: the policy without its `adapters`
    adapters     the PEFT model around `policy` where only adapters are trained
    value_trunk  a separate trunk for the value head; None: the value head reads the policy's trunk
    rollouts     samples the completions; None: the trainer samples with `policy`
    """

    policy: Any
    reference: Any = None
    adapters: Any = None
    value_trunk: Any = None
    rollouts: Rollouts | None = None


def check_batches(config: PPOConfig, world: int) -> None:
    """Raise UsageError unless `rollout_batch` is a multiple of `mini_batch`, and `world` divides `mini_batch` and `probe`."""
    for misfit in config.misfits(world):
        raise UsageError(misfit)


def accumulation_steps(config: PPOConfig, world: int) -> int:
    """Number of micro batches per mini-batch in each of `world` processes."""
    return math.ceil(config.mini_batch / world / config.micro_batch)
