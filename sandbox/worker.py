"""Sends programs to one worker process (`sandbox.runner`) and reads its answers; runs in the client's process."""

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

from sandbox.channel import Channel
from sandbox.errors import SandboxError
from sandbox.languages import language
from sandbox.verdicts import Program, Result

_PATIENCE_SECONDS = 60.0
"""A worker counts as hung when it exceeds the time that the limits allow by this much; the margin is for starting processes and
cleaning up."""


class Worker:
    """A worker. `start` starts its process, on first use and again after a failure. Not thread-safe."""

    def __init__(self, start: Callable[[], Channel]) -> None:
        self._start = start
        self._channel: Channel | None = None
        self._buffer = b""
        self._stopped = False
        self._interrupted: Channel | None = None

    def judge(self, programs: Sequence[Program]) -> list[Result]:
        """Judge programs, one after another. Returns one result for each; if the sandbox fails on a program, only the results of
        the programs before it.

        Raises `SandboxError` if the sandbox fails on the first program; the next call may succeed.
        """
        # Twice the time of one program, because the worker may write an answer together with the next one.
        patience = _PATIENCE_SECONDS + 2 * max(map(_longest_seconds, programs))
        request = {"judge": [program.to_json() for program in programs]}
        return list(map(Result.from_json, self._ask(request, patience, len(programs))))

    def missing(self, name: str) -> tuple[str, ...]:
        """The tools and files of language `name` that are missing on the machine or in the container of the worker. Raises
        `SandboxError`."""
        [missing] = self._ask({"missing": name}, _PATIENCE_SECONDS)
        return tuple(missing)

    def identity(self, name: str) -> str:
        """The identity of language `name` as the worker reports it; see `Sandbox.identity`. Raises `SandboxError`."""
        [identity] = self._ask({"identity": name}, _PATIENCE_SECONDS)
        return str(identity)

    def stop(self) -> None:
        """End the worker and its program for good. A thread that waits for the worker's answer gets `SandboxError`."""
        self._stopped = True
        if self._channel:
            self._channel.hang_up()

    def interrupt(self) -> None:
        """Kill the program and end the worker. A thread that waits for the worker's answer gets `SandboxError`. The next call
        starts the worker again."""
        self._interrupted = self._channel
        if self._channel:
            self._channel.hang_up()

    def close(self) -> None:
        """Stop the worker and close its channel. No thread may be waiting for the worker's answer."""
        self.stop()
        if self._channel:
            self._channel.close()

    def _ask(self, request: dict[str, Any], patience: float, answers: int = 1) -> list[Any]:
        """Send a request and wait up to `patience` seconds for each of its `answers` answers. Returns fewer if the worker failed
        after the first one. Raises `SandboxError` if it failed before."""
        if self._stopped:
            raise SandboxError("the sandbox is closed")
        if self._channel is not None and self._channel is self._interrupted:
            # The interrupt came when the program had just ended, so nobody has met it.
            self._drop(self._channel)
        if self._channel is None:
            self._channel, self._buffer = self._start(), b""
        channel = self._channel
        found: list[Any] = []
        try:
            channel.send(json.dumps(request).encode() + b"\n")
            while len(found) < answers:
                answer = json.loads(self._line(channel, time.monotonic() + patience))
                if "answer" in answer:
                    found.append(answer["answer"])
                if "last" in answer:  # the worker ends: the program left something that cannot be removed
                    self._drop(channel)
                if "last" in answer or "answer" not in answer:
                    break
        except (OSError, ValueError, SandboxError) as error:
            channel.kill()
            self._drop(channel)
            if not found:
                raise SandboxError(f"a sandbox worker failed: {error}") from error
        except BaseException:  # such as KeyboardInterrupt; the answer to come belongs to no later request
            channel.kill()
            self._drop(channel)
            raise
        if not found:
            raise SandboxError(answer.get("error", f"a sandbox worker answered {answer}"))
        return found

    def _drop(self, channel: Channel) -> None:
        channel.hang_up()
        if not self._stopped:
            channel.close()
            self._channel = None

    def _line(self, channel: Channel, deadline: float) -> bytes:
        """The next line that the worker writes. Raises `OSError`, `SandboxError`."""
        parts = [self._buffer]
        while b"\n" not in parts[-1]:
            parts.append(channel.receive(deadline))
        line, _, self._buffer = b"".join(parts).partition(b"\n")
        return line


def _longest_seconds(program: Program) -> float:
    """The longest time in seconds that a program, its checker and its audit may take within their limits."""
    limits, runs = program.limits or language(program.language).limits, max(len(program.cases), 1)
    seconds = 2 * limits.compile_wall_seconds + runs * limits.wall_seconds
    if program.checker:
        checking = language(program.checker.language).limits
        seconds += 2 * checking.compile_wall_seconds + runs * checking.wall_seconds
    # An audit judges a twin, and before that in Python up to two split programs.
    judgements = 1 if not program.audit else 4 if language(program.language).name == "py" else 2
    return judgements * seconds
