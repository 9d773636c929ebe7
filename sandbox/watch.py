"""Watches a started command, under a budget, until it and everything that it started has ended."""

import contextlib
import fcntl
import io
import os
import selectors
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from sandbox.errors import SandboxError
from sandbox.processes import Usage, kill_tree, tree_usage
from sandbox.verdicts import Verdict

_POLL_SECONDS = 0.05
_CHUNK = 1 << 16
_MANY_READS = 64
_PAUSE_SECONDS = 0.002
"""Between reads after the first many: a program that writes line by line is not answered line by line."""

_PIPE_BYTES = 512 << 10
"""What a program may write while the runner waits for a busy processor: node, once a pipe was full, writes no more until the
program returns to its event loop."""

_OVER_CPU_LIMIT = 128 + signal.SIGXCPU

Stdio = tuple[int, int, int]
"""The file descriptors of a command's stdin, stdout and stderr."""


class CallerGone(SandboxError):
    """Whoever asked for the run hung up; the program has been killed."""


@dataclass(frozen=True)
class Budget:
    """What a run may use, over all of its processes; see `Limits`. `threads`: at once."""

    cpu_seconds: float
    wall_seconds: float
    memory_bytes: int
    output_bytes: int
    threads: int


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `over`: the verdict of the limit that it went over, where it did."""

    exit_code: int
    over: Verdict | None
    wall_seconds: float
    cpu_seconds: float
    memory_bytes: int
    stdout: bytes
    stderr: bytes


class Child(Protocol):
    """A started command."""

    pid: int

    def fileno(self) -> int:
        """A file descriptor that becomes readable when the command has ended."""
        ...

    def wait(self) -> tuple[int, Usage]:
        """Reap it: the exit code (128 + n after signal n) and what it and the children it waited for used."""
        ...

    def close(self) -> None:
        """Free what `fileno` holds."""
        ...


def watch(
    start: Callable[[Stdio], Child],
    stdin: bytes,
    budget: Budget,
    keep: frozenset[int] = frozenset(),
    caller: int | None = None,
) -> Outcome:
    """Start a command and watch it to its end; then nothing that it started is left.

    `keep`: children of this process that are not the program's. `caller`: a file descriptor that becomes
    readable when the caller hangs up; that raises `CallerGone`. Raises `SandboxError` where the command
    cannot be started or killed.
    """
    with contextlib.ExitStack() as stack:
        (child_in, our_in), (our_out, child_out), (our_err, child_err) = (os.pipe() for _ in range(3))
        for pipe in (our_out, our_err):
            _widen(pipe)
        source = stack.enter_context(io.FileIO(our_in, "w"))
        out, err = (stack.enter_context(io.FileIO(fd, "r")) for fd in (our_out, our_err))
        try:
            child = start((child_in, child_out, child_err))
        finally:
            for fd in (child_in, child_out, child_err):
                os.close(fd)
        stack.callback(child.close)
        run = _Run(child, source, stdin, out, err, budget, keep)
        try:
            return run.finish(run.until_end(caller))
        except BaseException:
            _kill(child.pid)
            kill_tree(keep)
            raise


class _Run:
    """One run in progress: pumps its pipes and checks its budget."""

    def __init__(
        self,
        child: Child,
        source: io.FileIO,
        stdin: bytes,
        out: io.FileIO,
        err: io.FileIO,
        budget: Budget,
        keep: frozenset[int],
    ) -> None:
        self.child, self.source, self.budget, self.keep = child, source, budget, keep
        self.unsent = memoryview(stdin)
        self.out, self.err = out, err
        self.outputs = {out: bytearray(), err: bytearray()}
        for pipe in (source, out, err):
            os.set_blocking(pipe.fileno(), False)
        self.started = time.monotonic()
        self.peak = Usage()

    def until_end(self, caller: int | None) -> Verdict | None:
        """Pump until the command has ended (None) or is over a limit (its verdict)."""
        with selectors.DefaultSelector() as selector:
            end = selector.register(self.child.fileno(), selectors.EVENT_READ)
            for pipe in self.outputs:
                selector.register(pipe, selectors.EVENT_READ)
            if caller is not None:
                selector.register(caller, selectors.EVENT_READ)
            if self.unsent:
                selector.register(self.source, selectors.EVENT_WRITE)
            else:
                self.source.close()
            next_poll, reads = self.started + _POLL_SECONDS, 0
            while True:
                ready = [key for key, _ in selector.select(max(next_poll - time.monotonic(), 0))]
                for key in ready:
                    if key.fileobj == caller:
                        raise CallerGone("the caller hung up")
                    if key.fileobj is self.source and self._feed():
                        selector.unregister(self.source)
                        self.source.close()
                    if key.fileobj in self.outputs and self._drain(key.fileobj) == b"":
                        selector.unregister(key.fileobj)
                if self._received() > self.budget.output_bytes:
                    return Verdict.output_exceeded
                if end in ready:
                    return None
                reads += 1
                if reads > _MANY_READS:
                    time.sleep(_PAUSE_SECONDS)
                if time.monotonic() >= next_poll:
                    if over := self._over():
                        return over
                    next_poll = time.monotonic() + _POLL_SECONDS

    def finish(self, over: Verdict | None) -> Outcome:
        """End whatever still runs, read what is left in the pipes, and add up."""
        if over:
            _kill(self.child.pid)
        try:
            exit_code, own = self.child.wait()
        except SandboxError as error:
            self._drain(self.err)
            raise SandboxError(
                f"{error}: {self.outputs[self.err][-500:].decode('utf-8', 'replace')}"
            ) from error
        wall = time.monotonic() - self.started
        left = kill_tree(self.keep)
        for pipe in self.outputs:
            while self._received() <= self.budget.output_bytes and self._drain(pipe):
                pass
        cpu = max(own.cpu_seconds + left.cpu_seconds, self.peak.cpu_seconds)
        if over is None and self._received() > self.budget.output_bytes:
            over = Verdict.output_exceeded
        by_kernel = exit_code == _OVER_CPU_LIMIT and cpu >= self.budget.cpu_seconds / 2
        if over is None and (by_kernel or cpu >= self.budget.cpu_seconds):
            over = Verdict.timeout
        return Outcome(
            exit_code,
            over,
            wall,
            cpu,
            max(own.memory_bytes, left.memory_bytes, self.peak.memory_bytes),
            bytes(self.outputs[self.out]),
            bytes(self.outputs[self.err]),
        )

    def _received(self) -> int:
        return sum(map(len, self.outputs.values()))

    def _feed(self) -> bool:
        """Write some of stdin; whether that was all, or the command reads no more."""
        try:
            self.unsent = self.unsent[self.source.write(self.unsent[:_CHUNK]) or 0 :]
        except BrokenPipeError:
            return True
        return not self.unsent

    def _drain(self, pipe: io.FileIO) -> bytes | None:
        """Read what is there: empty at the end, None where nothing is there now."""
        for _ in range(_PIPE_BYTES // _CHUNK):
            data: bytes | None = pipe.read(_CHUNK)
            self.outputs[pipe] += data or b""
            if not data or len(data) < _CHUNK:
                break
        return data

    def _over(self) -> Verdict | None:
        """The limit that the process tree is over now."""
        now = tree_usage(self.keep)
        cpu, memory = (
            max(now.cpu_seconds, self.peak.cpu_seconds),
            max(now.memory_bytes, self.peak.memory_bytes),
        )
        self.peak = Usage(cpu, memory, now.threads)
        if time.monotonic() - self.started > self.budget.wall_seconds or cpu > self.budget.cpu_seconds:
            return Verdict.timeout
        if memory > self.budget.memory_bytes:
            return Verdict.memory_exceeded
        if now.threads > self.budget.threads:
            return Verdict.runtime_error
        return None


def _widen(pipe: int) -> None:
    with contextlib.suppress(OSError):  # gVisor; or this user has many already
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
