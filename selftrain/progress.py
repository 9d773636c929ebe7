"""Progress that one can watch: a live bar on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Callable
from typing import TextIO

SECONDS_BETWEEN_LINES = 10.0


def watch(label: str, stream: TextIO | None = None) -> Callable[..., None]:
    """A function `(done, total, unit, figures)` that shows how far `label` is, its rate and the time left."""
    out = stream or sys.stderr
    started = time.monotonic()
    first: list[float] = []
    last = [0.0]
    live = out.isatty()

    def show(
        done: float, total: float, unit: str = "", figures: dict[str, float | str] | None = None
    ) -> None:
        now = time.monotonic()
        if not first:
            first.append(done)
        finished = done >= total
        if not finished and now - last[0] < (0.2 if live else SECONDS_BETWEEN_LINES):
            return
        last[0] = now
        text = describe(label, done, total, unit, (done - first[0]) / max(now - started, 1e-9), figures or {})
        if live:
            out.write(f"\r\x1b[K{text}" + ("\n" if finished else ""))
        else:
            out.write(text + "\n")
        out.flush()

    return show


def describe(
    label: str, done: float, total: float, unit: str, rate: float, figures: dict[str, float | str]
) -> str:
    """One line: `sft  120/600 steps  8.3/s  58 s left  loss 0.31`."""
    parts = [f"{label:<28}", f"{done:g}/{total:g} {unit}".strip()]
    if rate > 0:
        parts.append(f"{rate:.3g}/s")
        if done < total:
            parts.append(f"{(total - done) / rate:.0f} s left")
    parts += [
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in figures.items()
    ]
    return "  ".join(parts)
