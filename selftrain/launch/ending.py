"""Ends a command on SIGHUP, SIGINT (Ctrl-C) or SIGTERM.

The first signal raises `Interrupted` in the main thread. Then `finally` blocks end child processes and sandboxes, and release
locks and leases. This clean-up may block, for instance on a server that does not answer. So SECONDS after the first signal, or
at a second Ctrl-C, the process kills its children and exits without clean-up. The store is consistent at every moment, and the
next run resumes from it.

A separate thread receives signals too, through the interpreter's wake-up descriptor (`signal.set_wakeup_fd`). It is needed since
libraries may replace the signal handlers, and the main thread may be in a call that no handler interrupts.
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
"""Longest time from the first signal to the exit of the process."""
SECONDS_AT_EXIT = 30.0
"""Longest time from the end of the command to the exit of the process, in which libraries flush their buffers."""
TWICE_SECONDS = 0.5
"""A second Ctrl-C earlier than this is ignored: `timeout` sends each signal twice, to the process and to its group."""
SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
"""Signals that end the command."""


class Interrupted(KeyboardInterrupt):
    """Raised in the main thread by the first signal."""


class Ending:
    """Handles signals and ends this process; `ENDING` is the only instance."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        """The first signal received."""
        self.doing = ""
        """The current activity, for the message after a signal."""
        self.goes_on = False
        """Whether the same command, run again, keeps what this one has finished."""
        self.last: list[Callable[[], None]] = []
        """Functions that are called before the process exits without clean-up; they must not block."""
        self._caught = self._raised = self._over = False
        self._code = 1
        self._seconds = SECONDS

    def catch(self) -> None:
        """Install the signal handlers, and start the thread. Signals that are ignored, as under nohup, stay ignored."""
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._handle)
        self._caught = self.goes_on = True
        # Registered before the libraries' exit functions, so called after them.
        atexit.register(self._at_exit)
        self._start_watch()

    def limit(self, seconds: float) -> None:
        """Let this process, whose signal handlers are another library's, exit `seconds` after the first signal that they handle.

        No-op after `catch`, which allows less, and outside the main thread, which alone can ask for signals.
        """
        if not self._caught and threading.current_thread() is threading.main_thread():
            self._seconds = seconds
            self._start_watch()

    def leave(self, why: str) -> NoReturn:
        """Kill all children and exit at once, as after a signal; `why`: the reason, for the message."""
        self.signal = self.signal or signal.SIGTERM
        self._exit_without_cleanup(why)

    def _start_watch(self) -> None:
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(reading,), daemon=True).start()

    def catch_again(self) -> None:
        """Install the SIGTERM handler again after a library has replaced it."""
        if signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN:
            signal.signal(signal.SIGTERM, self._handle)

    def interrupted(self) -> int:
        """Print the signal and the activity that it interrupted; returns the exit code."""
        # Without `catch` no signal is recorded; then only SIGINT can have raised KeyboardInterrupt.
        self.signal = self.signal or signal.SIGINT
        _say(f"selftrain: {self._words()}" + "; what is finished is kept, run again to go on" * self.goes_on)
        return 128 + self.signal

    def over(self, code: int) -> None:
        """Call this when the command has ended with exit code `code`: the process will exit within SECONDS_AT_EXIT."""
        self._over, self._code = True, code
        if self._caught and self.signal is None:
            timer = threading.Timer(SECONDS_AT_EXIT, self._leave, [code])
            timer.daemon = True
            timer.start()

    def _handle(self, number: int, _: object) -> None:
        """Signal handler: raise Interrupted at the first signal only, so that later signals do not interrupt clean-up."""
        if not (self._raised or self._over):
            self._raised = True
            self.signal = self.signal or signal.Signals(number)
            raise Interrupted

    def _watch(self, reading: int) -> None:
        """Thread: read signals from the wake-up descriptor; exit `_seconds` after the first, or at a second Ctrl-C."""
        first, wait = 0.0, None
        while True:
            if not select.select([reading], [], [], wait)[0]:
                self._exit_without_cleanup("it did not come to its end in time")
            for number in os.read(reading, 64):
                if number not in SIGNALS or signal.getsignal(number) is signal.SIG_IGN:
                    continue
                now = time.monotonic()
                if not first:
                    first = now
                    self.signal = self.signal or signal.Signals(number)
                elif number == signal.SIGINT and now - first > TWICE_SECONDS:
                    self._exit_without_cleanup("told twice")
            wait = max(0.0, first + self._seconds - time.monotonic()) if first else None

    def _exit_without_cleanup(self, why: str) -> NoReturn:
        """Kill all children and exit at once; `why`: the reason, for the message."""
        if self._over:
            self._leave(self._code)
        assert self.signal is not None
        self._leave(
            128 + self.signal,
            f"selftrain: {self._words()} ({why}); what is finished is kept, run again to go on",
        )

    def _at_exit(self) -> None:
        """Last exit function: exit with the command's exit code."""
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # an error here would change the exit code
                stream.flush()
        os._exit(self._code)

    def _words(self) -> str:
        assert self.signal is not None
        return f"ended by {self.signal.name}" + (f" during {self.doing}" if self.doing else "")

    def _leave(self, code: int, text: str = "") -> NoReturn:
        """Kill all children, print `text` and exit at once, without clean-up."""
        for act in (processes.kill_all, *self.last):
            with suppress(Exception):
                act()
        if text:
            _say(text)
        os._exit(code)


ENDING = Ending()


def _say(text: str) -> None:
    """Write a line to stderr. Errors are ignored, since the terminal may be closed."""
    with suppress(OSError, ValueError):
        start = "\n" if sys.stderr.isatty() else ""  # the current line may hold a progress bar
        os.write(2, f"{start}{text}\n".encode(errors="replace"))
