"""The progress of a command on stderr."""

import sys
import time


class Progress:
    """Prints the progress on stderr: rows done, rows per second, seconds left; every second on a terminal, else every 10 s."""

    def __init__(self, total: int, before: int, unit: str = "programs") -> None:
        self._unit = unit
        self._total, self._before, self._done = total, before, before
        self._started = self._shown = time.monotonic()
        self._terminal = sys.stderr.isatty()

    def step(self) -> None:
        """Count one more row."""
        self._done += 1
        now = time.monotonic()
        if now - self._shown < (1 if self._terminal else 10) and self._done < self._total:
            return
        self._shown = now
        rate = (self._done - self._before) / max(now - self._started, 1e-6)
        left = (self._total - self._done) / rate
        end = "\r" if self._terminal and self._done < self._total else "\n"
        line = f"{self._done}/{self._total} {self._unit}, {rate:.1f}/s, {left:.0f} s left"
        print(line, end=end, file=sys.stderr, flush=True)
