"""What a PPO trainer is made from: its settings, its models, and batch sizes that fit the number of processes."""

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
    """Plain values.

    max_new_tokens  longest completion, tokens
    ends            ids of the tokens that end a completion
    checkpoints     folder to save to and resume from; None: no checkpoints
    keep            how many checkpoints stay in that folder
    """

    config: PPOConfig
    seed: int
    max_new_tokens: int
    ends: Sequence[int]
    checkpoints: Path | None = None
    keep: int = 1


@dataclass(frozen=True)
class Models:
    """The networks of a run.

    policy, reference  causal language models with the same weights; training changes `policy` in place
    adapters           the PEFT model around `policy` where only adapters are trained; `reference` is None then, since the
                       reference is the policy without them
    value_trunk        the value head's own trunk; None: the policy's
    rollouts           samples completions; None: the policy itself does
    """

    policy: Any
    reference: Any = None
    adapters: Any = None
    value_trunk: Any = None
    rollouts: Rollouts | None = None


def check_batches(config: PPOConfig, world: int) -> None:
    """Raise UsageError unless the batch sizes divide each other and spread evenly over `world` processes."""
    for misfit in config.misfits(world):
        raise UsageError(misfit)


def accumulation_steps(config: PPOConfig, world: int) -> int:
    """Micro batches per mini-batch in each of `world` processes."""
    return math.ceil(config.mini_batch / world / config.micro_batch)
