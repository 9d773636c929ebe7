"""Shows progress: a line that is rewritten on a terminal, a new line every ten seconds elsewhere."""

import shutil
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TextIO

from selftrain.stop import current
from selftrain.units import duration

SECONDS_BETWEEN_LINES = 10.0


def watch(label: str, stream: TextIO | None = None) -> Callable[..., None]:
    """Return a function `(done, total, unit, figures)` that prints the progress of `label`, its rate and the time left."""
    out = stream or sys.stderr
    pace = Pace()
    last = [0.0]
    live = out.isatty()

    def show(
        done: float, total: float, unit: str = "", figures: dict[str, float | str] | None = None
    ) -> None:
        rate, now = pace(done), time.monotonic()
        finished = done >= total
        if not finished and now - last[0] < (0.2 if live else SECONDS_BETWEEN_LINES):
            return
        last[0] = now
        text = describe(label, done, total, unit, rate, figures or {})
        with LOCK, suppress(OSError):  # the reader of the stream is gone; the work continues
            out.write(
                _line(label, text, finished) if live else f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}\n"
            )
            out.flush()

    return show


LOCK = threading.Lock()
LINES: dict[str, str] = {}
"""Label -> what is shown of it in the terminal's last line: steps that work at the same time share that line."""


def _line(label: str, text: str, finished: bool) -> str:
    """What to write so that the last line shows all that is at work, the newest first; what has finished gets a line of its own."""
    LINES.pop(label, None)
    above = f"{text}\n" if finished else ""
    shown = [] if finished else [text]
    shown += reversed(LINES.values())
    if not finished:
        LINES[label] = text
    return f"\r\x1b[K{above}{' | '.join(shown)[: shutil.get_terminal_size().columns - 1]}"


class Pace:
    """Computes units per second since the first report, so that resumed work and a child's slow start do not count."""

    def __init__(self) -> None:
        self.first: tuple[float, float] | None = None

    def __call__(self, done: float) -> float:
        """The rate at `done`; 0 at the first report."""
        now = time.monotonic()
        if self.first is None or done < self.first[0]:  # the stage began a new count
            self.first = done, now
        began, then = self.first
        return (done - began) / max(now - then, 1e-9)


class Clock:
    """Passes progress on to `show` and records the throughput, which the manifest keeps and `selftrain plan` reads."""

    def __init__(self, show: Callable[..., None]) -> None:
        self.show = show
        self.pace: dict[str, Any] = {}
        self.began = 0.0

    def __call__(self, done: float, total: float, unit: str = "", figures: Any = None) -> None:
        """Record a report. The first one only sets the baseline, because a resumed stage does not begin at 0."""
        now = time.monotonic()
        if unit != self.pace.get("unit") or done < self.pace["to"]:  # the stage began a new count
            self.pace, self.began = {"unit": unit, "from": done}, now
        self.pace |= {"to": done, "total": total, "seconds": now - self.began}
        if "tokens_per_second" in (figures or {}):
            self.pace["tokens_per_second"] = figures["tokens_per_second"]
        self.show(done, total, unit, figures)
        current().check()


def describe(
    label: str, done: float, total: float, unit: str, rate: float, figures: dict[str, float | str]
) -> str:
    """One line: `sft  120/600 steps  8.3/s  58 s left  loss 0.31`."""
    parts = [f"{label:<28}", f"{done:g}/{total:g} {unit}".strip()]
    if rate > 0:
        parts.append(f"{rate:.3g}/s")
        if done < total:
            parts.append(f"{duration((total - done) / rate)} left")
    parts += [
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in figures.items()
    ]
    return "  ".join(parts)
