"""The state of a PPO run besides weights and optimizer; checkpoints store it as JSON."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

PHASES = ("rollout", "score", "execute", "reference", "update")
"""Parts of a step whose wall time is measured."""


@dataclass
class State:
    """The state of a run; all fields are JSON values.

    step            number of finished steps; it also gives the position in the data (see `experience.rows_of_step`)
    kl_coefficient  KL coefficient of the next step
    curve           metrics, one row per step
    samples         completions for people to read: [{"step", "prompt", "completion", "score", "ended"}], texts as token ids
    probes          metrics, one row per probe, see `Trainer.probe`
    seconds         wall time by phase
    """

    step: int
    kl_coefficient: float
    curve: list[dict[str, float]] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    probes: list[dict[str, float]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Context manager that adds the block's wall time to `seconds[phase]`."""
        started = time.monotonic()
        yield
        self.seconds[phase] += time.monotonic() - started


def best_step(probes: Sequence[dict[str, float]]) -> int:
    """The step of the probe with the highest pass rate; of equal pass rates the earliest."""
    return int(max(probes, key=lambda probe: probe["pass_rate"])["step"])
