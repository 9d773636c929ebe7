"""The speed of a machine: FLOP/s of each kind of work, and start-up times of stages."""

import socket
from dataclasses import dataclass, field
from typing import Any

from selftrain.config import RunConfig


@dataclass(frozen=True)
class Speed:
    """Rates that convert work to time.

    rates    kind of work (sft, train_reward, ppo, rollout (in PPO), sample, score) -> FLOP/s of one process
    starts   kind of work, or `execute` -> seconds of a stage outside of this work: start of the processes, and saving
    sandbox  wall seconds of a worker per CPU second of a program
    said     lines that name the sources of these numbers
    """

    rates: dict[str, float]
    starts: dict[str, float] = field(default_factory=dict)
    sandbox: float = 1.0
    said: tuple[str, ...] = ()


def stated_speed(
    tflops: float, utilisation: float, sampling_utilisation: float, scoring: float = 1.0
) -> Speed:
    """The speed from a device's peak, and the shares of the peak that training (with scoring) and sampling reach.

    scoring  the peak of the arithmetic in which rerankers score, as a share of the device's: TF32 has half the peak of bf16
    """
    batched = dict.fromkeys(("sft", "train_reward", "ppo", "score"), tflops * 1e12 * utilisation)
    batched["score"] *= scoring
    one_by_one = dict.fromkeys(("rollout", "sample"), tflops * 1e12 * sampling_utilisation)
    return Speed(
        batched | one_by_one,
        said=(
            f"{tflops:g} TFLOP/s a process at a utilisation of {utilisation:g}, {sampling_utilisation:g} where tokens are "
            "sampled one by one; starts of processes and checkpoints not counted",
        ),
    )


def where(config: RunConfig) -> dict[str, Any]:
    """The machine and the settings on which rates depend, as JSON values; `tasks.run` stores them in a manifest's `pace`."""
    names = ("device", "processes", "nodes", "threads", "workers", "backend")
    runtime = {name: getattr(config.runtime, name) for name in names}
    return {"machine": socket.gethostname(), **runtime}
