"""How a command ends that is told to: SIGHUP, SIGINT (Ctrl-C) and SIGTERM, all in one place.

The first of them raises `Interrupted` where the work is, so that children, sandboxes, locks and leases are given up on the way
out. What that way leads through may be gone itself, a server for instance: after SECONDS, or at a second Ctrl-C, children
are killed and the process ends as it stands. What is in the store is whole at any moment; the next run goes on from there.

A signal is seen by a thread too, through the descriptor that the interpreter writes its number to: libraries put in handlers of
their own, and the main thread may wait for something that no handler ends.
"""

import atexit
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from selftrain.launch import processes

SECONDS = 7.0
"""From the first signal to the end, at most."""
SECONDS_AT_EXIT = 30.0
"""From the command's own end to the process's, at most: libraries send what they have kept back."""
TWICE_SECONDS = 0.5
"""A second Ctrl-C counts after this: `timeout` sends each signal twice, to the process and to its group."""
SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A signal told this process to end."""


class Ending:
    """The end of this process."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        """The first that came."""
        self.doing = ""
        """What the signal interrupts, as people read it."""
        self.last: list[Callable[[], None]] = []
        """To be called before the process ends as it stands; they must not wait."""
        self._caught = self._raised = self._over = False
        self._code = 1

    def catch(self) -> None:
        """From now on signals end this process as the module says; those that are ignored (nohup) stay so."""
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._handle)
        self._caught = True
        atexit.register(self._at_exit)  # before libraries do, so it comes last
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(reading,), daemon=True).start()

    def catch_again(self) -> None:
        """Handle SIGTERM after a library has put in a handler of its own."""
        if signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN:
            signal.signal(signal.SIGTERM, self._handle)

    def interrupted(self) -> int:
        """Say what was interrupted; the exit code."""
        self.signal = (
            self.signal or signal.SIGINT
        )  # without `catch`, the interpreter raises for this one alone
        _say(f"selftrain: {self._words()}; what is finished is kept, run again to go on")
        return 128 + self.signal

    def over(self, code: int) -> None:
        """The command has come to its end, and will exit with `code`; see that the process does."""
        self._over, self._code = True, code
        if self._caught and self.signal is None:
            timer = threading.Timer(SECONDS_AT_EXIT, self._leave, [code])
            timer.daemon = True
            timer.start()

    def _handle(self, number: int, _: object) -> None:
        """Raises once: what gives things up on the way out is not interrupted in its turn."""
        if not (self._raised or self._over):
            self._raised = True
            self.signal = self.signal or signal.Signals(number)
            raise Interrupted

    def _watch(self, reading: int) -> None:
        first, wait = 0.0, None
        while True:
            if not select.select([reading], [], [], wait)[0]:
                self._give_up("it did not come to its end in time")
            for number in os.read(reading, 64):
                if number not in SIGNALS or signal.getsignal(number) is signal.SIG_IGN:
                    continue
                now = time.monotonic()
                if not first:
                    first = now
                    self.signal = self.signal or signal.Signals(number)
                elif number == signal.SIGINT and now - first > TWICE_SECONDS:
                    self._give_up("told twice")
            wait = max(0.0, first + SECONDS - time.monotonic()) if first else None

    def _give_up(self, why: str) -> NoReturn:
        if self._over:
            self._leave(self._code)
        assert self.signal is not None
        self._leave(
            128 + self.signal,
            f"selftrain: {self._words()} ({why}); what is finished is kept, run again to go on",
        )

    def _at_exit(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # the interpreter makes an exit code of its own of it
                stream.flush()
        os._exit(self._code)

    def _words(self) -> str:
        assert self.signal is not None
        return f"ended by {self.signal.name}" + (f" during {self.doing}" if self.doing else "")

    def _leave(self, code: int, text: str = "") -> NoReturn:
        """End this process as it stands, and with it what it has started."""
        for act in (processes.kill_all, *self.last):
            with suppress(Exception):
                act()
        if text:
            _say(text)
        os._exit(code)


ENDING = Ending()


def _say(text: str) -> None:
    """Write a line to stderr, which may be a terminal that is gone."""
    with suppress(OSError, ValueError):
        mark = "\n" if sys.stderr.isatty() else ""  # a progress bar may stand there
        os.write(2, f"{mark}{text}\n".encode(errors="replace"))
