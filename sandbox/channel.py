"""The byte stream between the client and a worker.

The worker is a child process (`Pipe`) or runs in a container (`sandbox.backends.docker.Attached`).
"""

import contextlib
import os
import select
import subprocess
import time
from pathlib import Path
from typing import Protocol

from sandbox.errors import SandboxError

GOODBYE_SECONDS = 15.0
"""Seconds that a worker may take to end by itself after its stdin is closed."""
_LONGEST_WAIT = 7 * 24 * 3600.0
"""Seconds of one wait; poll takes at most 24 days."""


class Channel(Protocol):
    """The connection to a running worker."""

    def send(self, data: bytes) -> None:
        """Write all of `data` to the worker's stdin. Raises `OSError`, `SandboxError`."""
        ...

    def receive(self, deadline: float) -> bytes:
        """The next bytes of the worker's stdout, at least one. Raises `OSError`, and `SandboxError` if nothing comes until
        `deadline` (on the clock of `time.monotonic`) or the worker has ended."""
        ...

    def hang_up(self) -> None:
        """Close the worker's stdin, which makes the worker kill its program and end, and wait until it has ended. Idempotent."""
        ...

    def kill(self) -> None:
        """Kill the worker."""
        ...

    def close(self) -> None:
        """Close the streams of a worker that has ended."""
        ...


class Pipe:
    """A worker process, started with `command`. It has a session of its own, so that Ctrl-C reaches only the client."""

    def __init__(self, command: tuple[str, ...]) -> None:
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            raise SandboxError(f"cannot start a sandbox worker ({' '.join(command)}): {error}") from error
        assert self.process.stdin
        assert self.process.stdout
        self._to, self._from = self.process.stdin, self.process.stdout

    def send(self, data: bytes) -> None:
        self._to.write(data)
        self._to.flush()

    def receive(self, deadline: float) -> bytes:
        wait_readable(self._from.fileno(), deadline)
        data = os.read(self._from.fileno(), 1 << 16)
        if not data:
            raise SandboxError("it ended unexpectedly")
        return data

    def hang_up(self) -> None:
        with contextlib.suppress(OSError):
            self._to.close()
        try:
            self.process.wait(timeout=GOODBYE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def kill(self) -> None:
        self.process.kill()

    def close(self) -> None:
        self._from.close()


def wait_readable(fd: int, deadline: float) -> None:
    """Wait until `fd` can be read. Raises `SandboxError` at `deadline`."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while not poll.poll(1000 * min(max(deadline - time.monotonic(), 0), _LONGEST_WAIT)):
        if time.monotonic() >= deadline:
            raise SandboxError("it did not answer in time")
