"""One worker (`sandbox.runner`), seen from the client."""

import json
import time
from collections.abc import Callable
from typing import Any

from sandbox.channel import Channel
from sandbox.errors import SandboxError
from sandbox.languages import language
from sandbox.verdicts import Program, Result

_PATIENCE_SECONDS = 60.0
"""How much longer than the limits allow a worker may take, to start things and to clear up."""


class Worker:
    """A worker, made by `start` on first use and after a failure; for one thread at a time."""

    def __init__(self, start: Callable[[], Channel]) -> None:
        self._start = start
        self._channel: Channel | None = None
        self._buffer = b""
        self._stopped = False

    def judge(self, program: Program) -> Result:
        """Judge one program. Raises `SandboxError` where the sandbox fails; the next call may work."""
        limits = program.limits or language(program.language).limits
        runs = max(len(program.cases), 1)
        patience = 2 * limits.compile_wall_seconds + runs * limits.wall_seconds + _PATIENCE_SECONDS
        return Result.from_json(self._ask({"judge": program.to_json()}, patience))

    def missing(self, name: str) -> tuple[str, ...]:
        """The tools and files that language `name` lacks where the worker runs. Raises `SandboxError`."""
        return tuple(self._ask({"missing": name}, _PATIENCE_SECONDS))

    def identity(self, name: str) -> str:
        """The tools and rules of language `name` where the worker runs. Raises `SandboxError`."""
        return str(self._ask({"identity": name}, _PATIENCE_SECONDS))

    def stop(self) -> None:
        """End the worker and what it runs, for good; whoever waits for its answer gets `SandboxError`."""
        self._stopped = True
        if self._channel:
            self._channel.hang_up()

    def close(self) -> None:
        """Free what a stopped worker holds; no thread may be waiting for it."""
        self.stop()
        if self._channel:
            self._channel.close()

    def _ask(self, request: dict[str, Any], patience: float) -> Any:
        """Send a request and wait up to `patience` seconds for the answer to it."""
        if self._stopped:
            raise SandboxError("the sandbox is closed")
        if self._channel is None:
            self._channel, self._buffer = self._start(), b""
        channel = self._channel
        try:
            channel.send(json.dumps(request).encode() + b"\n")
            answer = json.loads(self._line(channel, time.monotonic() + patience))
        except (OSError, ValueError, SandboxError) as error:
            channel.kill()
            self._drop(channel)
            raise SandboxError(f"a sandbox worker failed: {error}") from error
        if answer.get(
            "last"
        ):  # what the program left cannot be cleared away: the next one gets another worker
            self._drop(channel)
        if "answer" not in answer:
            raise SandboxError(answer.get("error", f"a sandbox worker answered {answer}"))
        return answer["answer"]

    def _drop(self, channel: Channel) -> None:
        channel.hang_up()
        if not self._stopped:
            channel.close()
            self._channel = None

    def _line(self, channel: Channel, deadline: float) -> bytes:
        """The next line that the worker writes. Raises `OSError`, `SandboxError`."""
        while b"\n" not in self._buffer:
            self._buffer += channel.receive(deadline)
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line
