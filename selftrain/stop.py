"""Ends a step of a run from another thread: a run's steps work in threads, which no signal reaches.

`Stop.stop` ends what a step waits for, child processes and sandboxes; the step's next report of progress raises `Stopped`. What
runs outside of a run's steps has a `Stop` that nobody uses.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import ContextVar

from selftrain.errors import RunError


class Stopped(RunError):
    """The step was ended before its time; what it had finished is kept."""


class Stop:
    """Stops all steps of one run.

    reason  why they end, for messages; None: they go on
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self._lock = threading.Lock()
        self._acts: list[Callable[[], None]] = []
        self._last: list[Callable[[], None]] = []

    def stop(self, reason: str) -> None:
        """End the steps. Only the first call has an effect."""
        with self._lock:
            if self.reason is not None:
                return
            self.reason = reason
        self._call(self._acts)

    def leave(self) -> None:
        """Give up what steps hold that have not ended in time: the process ends without them."""
        self._call(self._last)

    def check(self) -> None:
        """Raise `Stopped` if the step has to end."""
        if self.reason is not None:
            raise Stopped(self.reason)

    @contextmanager
    def calling(self, act: Callable[[], None]) -> Iterator[None]:
        """For the block, `stop` calls `act`, which ends what the block waits for. Raises `Stopped` if the step has to end already."""
        with self._among(self._acts, act):
            self.check()  # after it is among them: a `stop` from now on calls it
            yield

    def holding(self, give_up: Callable[[], None]) -> AbstractContextManager[None]:
        """For the block, `leave` calls `give_up`, so that others need not wait for what the block holds."""
        return self._among(self._last, give_up)

    @contextmanager
    def _among(self, acts: list[Callable[[], None]], act: Callable[[], None]) -> Iterator[None]:
        with self._lock:
            acts.append(act)
        try:
            yield
        finally:
            with self._lock:
                acts.remove(act)

    def _call(self, acts: list[Callable[[], None]]) -> None:
        with self._lock:
            acts = list(acts)
        for act in acts:
            with suppress(Exception):  # all others are called too
                act()


STOP: ContextVar[Stop] = ContextVar("selftrain_stop")
"""The `Stop` of the step that this thread works for; read it by `current`."""


def current() -> Stop:
    """The `Stop` of this thread's step; outside of a step one that is never used."""
    return STOP.get(NEVER)


NEVER = Stop()
