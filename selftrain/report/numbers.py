"""Formats numbers for people: shares, intervals, differences, times."""

from collections.abc import Mapping

from selftrain.evaluation.metrics import Estimate
from selftrain.units import duration


def percent(value: float) -> str:
    """0.521 -> `52.1 %`."""
    return f"{100 * value:.1f}\N{NO-BREAK SPACE}%"


def interval(estimate: Estimate) -> str:
    """The 95 % interval of a share, in percent: `[46.0, 58.1]`."""
    return f"[{100 * estimate['low']:.1f}, {100 * estimate['high']:.1f}]"


def points(value: float) -> str:
    """A difference of shares: `+10.4 points`."""
    return f"{signed(100 * value, 1)}\N{NO-BREAK SPACE}points"


def signed(value: float, digits: int) -> str:
    """`value` with a plus or a typographic minus sign."""
    return f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def difference(estimate: Estimate) -> str:
    """A paired difference of shares with its interval, and a remark if it is not significant."""
    low, high = signed(100 * estimate["low"], 1), signed(100 * estimate["high"], 1)
    known = "" if estimate["low"] > 0 or estimate["high"] < 0 else ", not significant (95 % CI includes 0)"
    return f"{points(estimate['value'])} [{low}, {high}]{known}"


def run_time(seconds: Mapping[str, float], cached: int) -> str:
    """The duration of a run; if stages were cached, also the total duration of all stages when they were built.

    seconds  stage -> seconds, and `total` -> seconds of the run, as in report.json
    cached   number of stages that were cache hits
    """
    run = f"this run took {duration(seconds['total'])}"
    if not cached:
        return run
    made = sum(value for stage, value in seconds.items() if stage != "total")
    return f"its stages took {duration(made)} to make; {run}, for {cached} of them were cached"
