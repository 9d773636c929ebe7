"""Shows the progress of a command on a terminal: what is done, the rate, and the time left."""

import time
from typing import Any, TextIO

from selftrain.units import duration

TERMINAL, LOG = 0.5, 30.0
"""Seconds between two reports: on a terminal, which overwrites its line, and elsewhere."""


class Progress:
    """Called with (done, total, what) now and then; writes a line to `out` at most every half second.

    Calls with another `what` begin anew. A `total` of 0 is unknown.
    """

    def __init__(self, out: TextIO) -> None:
        self.out = out
        self.what = ""
        self.first = 0
        self.began = self.said = 0.0

    def __call__(self, done: int, total: int, what: str, *_: Any, **__: Any) -> None:
        """Report that `done` of `total` are done."""
        now = time.monotonic()
        if what != self.what:
            self.what, self.first, self.began, self.said = what, done, now, now
        terminal = self.out.isatty()
        # What is done at once needs no report; the last report of a longer work completes its line.
        ended = done == total and self.said > self.began
        if not ended and now - self.said < (TERMINAL if terminal else LOG):
            return
        self.said = now
        rate = (done - self.first) / max(now - self.began, 1e-9)
        left = f", {duration((total - done) / rate)} left" if rate and total > done else ""
        of = f" of {total}" if total else ""
        line = f"{done}{of} {what}, {rate:.3g}/s{left}"
        self.out.write(f"\r{line:<79}" + ("\n" if ended else "") if terminal else f"{line}\n")
        self.out.flush()
