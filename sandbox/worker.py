"""One worker process (`sandbox.runner`), seen from the client."""

import contextlib
import json
import os
import selectors
import subprocess
import time
from pathlib import Path
from typing import Any

from sandbox.errors import SandboxError
from sandbox.languages import language
from sandbox.verdicts import Program, Result

_PATIENCE_SECONDS = 60.0
"""How much longer than the limits allow a worker may take, to start things and to clear up."""

_GOODBYE_SECONDS = 15.0


class Worker:
    """A worker process, started with `command` on first use and after a failure; for one thread at a time."""

    def __init__(self, command: tuple[str, ...]) -> None:
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
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
        if self._process:
            _hang_up(self._process)

    def close(self) -> None:
        """Free what a stopped worker holds; no thread may be waiting for it."""
        self.stop()
        if self._process and self._process.stdout:
            self._process.stdout.close()

    def _ask(self, request: dict[str, Any], patience: float) -> Any:
        """Send a request and wait up to `patience` seconds for the answer to it."""
        if self._stopped:
            raise SandboxError("the sandbox is closed")
        if self._process is None:
            self._process, self._buffer = _start(self._command), b""
        process = self._process
        try:
            assert process.stdin is not None
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            answer = json.loads(self._line(process, time.monotonic() + patience))
        except (OSError, ValueError, SandboxError) as error:
            process.kill()
            _hang_up(process)
            if not self._stopped:
                self._process = None
            raise SandboxError(f"a sandbox worker failed: {error}") from error
        if "answer" not in answer:
            raise SandboxError(answer.get("error", f"a sandbox worker answered {answer}"))
        return answer["answer"]

    def _line(self, process: subprocess.Popen[bytes], deadline: float) -> bytes:
        """The next line that the worker writes. Raises `SandboxError` where none comes in time."""
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(max(deadline - time.monotonic(), 0)):
                    raise SandboxError("it did not answer in time")
                data = os.read(process.stdout.fileno(), 1 << 16)
                if not data:
                    raise SandboxError("it ended unexpectedly")
                self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line


def _start(command: tuple[str, ...]) -> subprocess.Popen[bytes]:
    """Start a worker in a session of its own, so that Ctrl-C reaches the caller alone."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,
            bufsize=-1,
        )
    except OSError as error:
        raise SandboxError(f"cannot start a sandbox worker ({' '.join(command)}): {error}") from error


def _hang_up(process: subprocess.Popen[bytes]) -> None:
    """Close the worker's stdin, which ends it, and wait for its end."""
    with contextlib.suppress(OSError):
        if process.stdin:
            process.stdin.close()
    try:
        process.wait(timeout=_GOODBYE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
