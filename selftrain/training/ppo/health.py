"""Ends a PPO run that diverges or hacks its reward, by the bounds in `ppo.health`."""

import math
from collections.abc import Mapping, Sequence

from selftrain.config import HealthConfig
from selftrain.errors import UsageError

ADVICE = "lower ppo.learning_rate, raise ppo.kl_coefficient, or move the bound in ppo.health"


def hacking_gap(first: Mapping[str, float], now: Mapping[str, float]) -> float:
    """The rise of the score since the first probe minus the rise of the pass rate, each in the first probe's standard deviations.

    Reward hacking raises the score but not the pass rate (Gao et al. 2023).

    first, now  the first and the newest row of `State.probes`: `score`, `score_std`, `pass_rate`, `problems`

    The standard deviation of a pass rate p is sqrt(p (1 - p)). To keep it above 0, p is clamped to [1/n, 1 - 1/n] for n problems.
    """
    score = (now["score"] - first["score"]) / (first["score_std"] or 1.0)
    least = 1 / max(first["problems"], 2)
    p = min(max(first["pass_rate"], least), 1 - least)
    return score - (now["pass_rate"] - first["pass_rate"]) / math.sqrt(p * (1 - p))


def check_finite(step: int, row: Mapping[str, float], rate: float) -> None:
    """Raise UsageError where a metric in `row` of step `step` (1, 2, ...) is NaN or infinite; `rate`: the learning rate."""
    _end(step, rate, [f"{name} {value}" for name, value in row.items() if not math.isfinite(value)])


def check(
    step: int,
    row: Mapping[str, float],
    probes: Sequence[Mapping[str, float]],
    bounds: HealthConfig,
    rate: float,
) -> None:
    """Raise UsageError where a metric of the step's `row` or of the newest probe is not finite or violates its bound."""
    check_finite(step, {**row, **(probes[-1] if probes else {})}, rate)
    wrong = []
    for name, value, bound, above in (
        ("kl", row.get("kl"), bounds.max_kl, True),
        ("entropy", row.get("entropy"), bounds.min_entropy, False),
        ("clip_fraction", row.get("clip_fraction"), bounds.max_clip_fraction, True),
        ("hacking_gap", probes[-1].get("hacking_gap") if probes else None, bounds.max_hacking_gap, True),
    ):
        if value is not None and bound is not None and (value > bound if above else value < bound):
            wrong.append(f"{name} {value:.3g}, expected {'at most' if above else 'at least'} {bound:g}")
    _end(step, rate, wrong)


def _end(step: int, rate: float, wrong: Sequence[str]) -> None:
    if wrong:
        raise UsageError(
            f"stage ppo diverged at step {step}: {'; '.join(wrong)}; at learning rate {rate:.4g}; {ADVICE}"
        )
