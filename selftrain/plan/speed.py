"""What turns work into time: FLOP/s of each kind of work, and the seconds that a stage needs beside them."""

import socket
from dataclasses import dataclass, field
from typing import Any

from selftrain.config import RunConfig


@dataclass(frozen=True)
class Speed:
    """What turns work into time.

    rates    kind of work -> FLOP/s of one process: sft, train_reward, ppo, rollout (in PPO), sample, score
    starts   kind of work -> seconds of a stage beside that work: its process starts, and saves what it made
    sandbox  wall seconds of a worker for each CPU second of a program
    said     lines that say where these figures are from
    """

    rates: dict[str, float]
    starts: dict[str, float] = field(default_factory=dict)
    sandbox: float = 1.0
    said: tuple[str, ...] = ()


def stated_speed(tflops: float, utilisation: float, sampling_utilisation: float) -> Speed:
    """The speed that follows from a device's peak and the shares of it that training and sampling reach."""
    batched = dict.fromkeys(("sft", "train_reward", "ppo", "score"), tflops * 1e12 * utilisation)
    one_by_one = dict.fromkeys(("rollout", "sample"), tflops * 1e12 * sampling_utilisation)
    return Speed(
        batched | one_by_one,
        said=(
            f"{tflops:g} TFLOP/s a process at a utilisation of {utilisation:g}, {sampling_utilisation:g} where tokens are "
            "sampled one by one; starts of processes and checkpoints not counted",
        ),
    )


def where(config: RunConfig) -> dict[str, Any]:
    """What rates depend on beside the work, as JSON values: a manifest's `pace` has them."""
    names = ("device", "processes", "nodes", "threads", "workers", "backend")
    runtime = {name: getattr(config.runtime, name) for name in names}
    return {"machine": socket.gethostname(), **runtime}
