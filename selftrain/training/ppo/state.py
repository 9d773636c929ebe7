"""What a PPO run carries from step to step besides weights and optimizer; a checkpoint holds it as JSON."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

PHASES = ("rollout", "score", "execute", "reference", "update")


@dataclass
class State:
    """JSON values only.

    step            steps done; also the position in the data (see `experience.rows_of_step`)
    kl_coefficient  for the next step
    curve           one row of metrics per step
    samples         [{"step", "prompt", "completion" (token ids), "score"}]
    probes          one row of figures per probe, see `Trainer.probe`
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
        """Add the block's wall time to `seconds[phase]`."""
        started = time.monotonic()
        yield
        self.seconds[phase] += time.monotonic() - started


def best_step(probes: Sequence[dict[str, float]]) -> int:
    """The step of the probe with the highest pass rate, the first of equals."""
    return int(max(probes, key=lambda probe: probe["pass_rate"])["step"])
