"""Runs a command under limits until it and all processes that it started have ended."""

import contextlib
import fcntl
import os
import select
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from sandbox.errors import SandboxError
from sandbox.exchange import is_over
from sandbox.group import Group
from sandbox.meter import Meter
from sandbox.processes import Usage, kill_all, kill_tree
from sandbox.verdicts import Verdict

_POLL_SECONDS = 0.05
"""Interval at which usage is compared with the limits."""
_QUIET_SECONDS = 0.005
"""The runner leaves output in the pipes for this long. Many programs end within it, and no read interrupts them."""
_CHUNK = 1 << 16
_MANY_READS = 64
_PAUSE_SECONDS = 0.002
"""Pause between reads after the first `_MANY_READS` reads, so that the output of a program that writes single lines is read in
larger pieces."""

_PIPE_BYTES = 512 << 10
"""The size of a pipe. It has to be large, because the runner may wait for a busy processor while output arrives, and once a pipe
has been full, node writes nothing more until the program returns to its event loop."""

MOMENT = 0.02
"""Seconds that `Child.wait` waits; a killed command usually ends within them."""
_PATIENCE_SECONDS = 10.0
"""Seconds after which a killed command that still runs counts as impossible to kill."""

_OVER_CPU_LIMIT = 128 + signal.SIGXCPU

Stdio = tuple[int, int, int]
"""The file descriptors of a command's stdin, stdout and stderr."""


class CallerGone(SandboxError):
    """The client closed its connection; the program has been killed."""


@dataclass(frozen=True)
class Budget:
    """Limits of one run, over all of its processes; see `Limits`. `threads`: threads that exist at the same time. `disk_bytes`:
    size of `directory` with all its files (no limit if `directory` is None). `places`: directories in memory that belong to the
    program, as in `sandbox.meter.Meter`."""

    cpu_seconds: float
    wall_seconds: float
    memory_bytes: int
    output_bytes: int
    threads: int
    directory: Path | None = None
    disk_bytes: int = 0
    places: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `over`: the verdict for the limit that the run exceeded; None if it exceeded none."""

    exit_code: int
    over: Verdict | None
    wall_seconds: float
    cpu_seconds: float
    memory_bytes: int
    stdout: bytes
    stderr: bytes

    def then(self, later: "Outcome") -> "Outcome":
        """This run and a later one as one run, which ended as the later one."""
        return replace(
            later,
            wall_seconds=self.wall_seconds + later.wall_seconds,
            cpu_seconds=self.cpu_seconds + later.cpu_seconds,
            memory_bytes=max(self.memory_bytes, later.memory_bytes),
            stdout=self.stdout + later.stdout,
            stderr=self.stderr + later.stderr,
        )


class Child(Protocol):
    """A started command."""

    def fileno(self) -> int:
        """A file descriptor that becomes readable when the command has ended."""
        ...

    def wait(self) -> tuple[int, Usage] | None:
        """Reap the command. Returns its exit code (128 + n after signal n), and its usage together with that of the children that
        it waited for. None if it cannot be reaped yet: it has not ended within `MOMENT`, or another process traces it. Raises
        `SandboxError`."""
        ...

    def close(self) -> None:
        """Close the descriptor of `fileno`."""
        ...


def watch(
    start: Callable[[Stdio], Child],
    stdin: bytes,
    budget: Budget,
    keep: frozenset[int] = frozenset(),
    caller: int | None = None,
    user: int | None = None,
    group: Group | None = None,
) -> Outcome:
    """Start a command with `start` and watch it until it ends. Afterwards no process that it started is left.

    `keep`: children of this process that do not belong to the program. `caller`: a file descriptor that becomes readable when the
    client closes its connection; `CallerGone` is raised then. `user`: the user id of the command (None: this process's user).
    `group`: the control group of this process, if it has one.
    Raises `SandboxError` if the command cannot be started or killed.
    """
    with contextlib.ExitStack() as stack:
        (child_in, source), (out, child_out), (err, child_err) = (os.pipe() for _ in range(3))
        ours = [source, out, err]
        stack.callback(_close, ours)
        for pipe in (out, err):
            # It fails under gVisor, and if the user's pipes have reached the kernel's limit.
            with contextlib.suppress(OSError):
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        if user is not None:
            for pipe in (child_in, child_out, child_err):
                _give(pipe, user)
        before = group.memory_bytes() if group else 0
        try:
            child = start((child_in, child_out, child_err))
        finally:
            _close([child_in, child_out, child_err])
        stack.callback(child.close)
        run = _Run(child, ours, stdin, budget, keep, partial(Meter, keep, group, budget.places, before))
        try:
            return run.finish(run.until_end(caller))
        except BaseException:
            kill_tree(keep)
            raise


class _Run:
    """A run in progress. It reads and writes the command's pipes and compares its usage with the budget."""

    def __init__(
        self,
        child: Child,
        pipes: list[int],
        stdin: bytes,
        budget: Budget,
        keep: frozenset[int],
        measure: Callable[[], Meter],
    ) -> None:
        """`pipes`: this process's ends of the child's stdin, stdout and stderr. A pipe that the run closes is removed from the
        list; the caller closes the others. `measure`: makes a meter."""
        self.child, self.pipes, self.budget, self.keep, self.measure = child, pipes, budget, keep, measure
        self.source, self.out, self.err = pipes
        self.unsent = memoryview(stdin)
        self.outputs = {self.out: bytearray(), self.err: bytearray()}
        for pipe in pipes:
            os.set_blocking(pipe, False)
        self.started = time.monotonic()
        self.peak = Usage()
        self.meter: Meter | None = None  # only for programs that run longer than `_QUIET_SECONDS`

    def until_end(self, caller: int | None) -> Verdict | None:
        """Read and write until the command has ended (returns None) or exceeds a limit (returns the verdict for that limit)."""
        end = self.child.fileno()
        poll = select.poll()
        for fd in (end,) if caller is None else (end, caller):
            poll.register(fd, select.POLLIN)
        if self.unsent:
            poll.register(self.source, select.POLLOUT)
        else:
            self._end_input()
        next_poll, reads, quiet = self.started + _QUIET_SECONDS, 0, True
        while True:
            ready = [fd for fd, _ in poll.poll(1000 * max(next_poll - time.monotonic(), 0))]
            for fd in ready:
                if fd == caller:
                    raise CallerGone("the caller hung up")
                if fd == self.source and self._feed():
                    poll.unregister(fd)
                    self._end_input()
                if fd in self.outputs and self._drain(fd) == b"":
                    poll.unregister(fd)
            if self._received() > self.budget.output_bytes:
                return Verdict.output_exceeded
            if end in ready:
                return None
            reads += 1
            if reads > _MANY_READS:
                time.sleep(_PAUSE_SECONDS)
            if time.monotonic() >= next_poll:
                if quiet:
                    quiet = False
                    self.meter = self.measure()
                    for fd in self.outputs:
                        poll.register(fd, select.POLLIN)
                elif self.meter and (over := self._over(self.meter)):
                    return over
                next_poll = time.monotonic() + _POLL_SECONDS

    def finish(self, over: Verdict | None) -> Outcome:
        """Kill all remaining processes, read the rest of the pipes, and return the outcome."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        try:
            if over:
                kill_all(self.keep)
            while (ended := self.child.wait()) is None:
                kill_all(self.keep)  # also a process that traces the command
                if time.monotonic() > deadline:
                    raise SandboxError("a program could not be killed")
        except SandboxError as error:
            self._drain(self.err)
            said = self.outputs[self.err][-500:].decode("utf-8", "replace")
            raise SandboxError(f"{error}: {said}") from error
        exit_code, own = ended
        wall = time.monotonic() - self.started
        left = kill_tree(self.keep)
        for pipe in self.outputs:
            while self._received() <= self.budget.output_bytes and self._drain(pipe):
                pass
        cpu = max(own.cpu_seconds + left.cpu_seconds, self.peak.cpu_seconds)
        if self.meter:
            cpu = max(cpu, own.cpu_seconds + left.cpu_seconds + self.meter.lost, self.meter.cpu_seconds())
        if over is None and self._received() > self.budget.output_bytes:
            over = Verdict.output_exceeded
        by_kernel = exit_code == _OVER_CPU_LIMIT and cpu >= self.budget.cpu_seconds / 2
        if over is None and (by_kernel or cpu >= self.budget.cpu_seconds):
            over = Verdict.timeout
        memory = max(own.memory_bytes, left.memory_bytes, self.peak.memory_bytes)
        stdout, stderr = bytes(self.outputs[self.out]), bytes(self.outputs[self.err])
        return Outcome(exit_code, over, wall, cpu, memory, stdout, stderr)

    def _received(self) -> int:
        return sum(map(len, self.outputs.values()))

    def _feed(self) -> bool:
        """Write some of stdin. Returns whether nothing is left to write: all is written, or the command has closed its stdin."""
        try:
            self.unsent = self.unsent[os.write(self.source, self.unsent[:_CHUNK]) :]
        except BlockingIOError:
            pass
        except BrokenPipeError:
            return True
        return not self.unsent

    def _end_input(self) -> None:
        self.pipes.remove(self.source)
        os.close(self.source)
        self.source = -1

    def _drain(self, pipe: int) -> bytes | None:
        """Read the output that is available. Returns empty bytes at the end of the output, None if nothing is available now."""
        for _ in range(_PIPE_BYTES // _CHUNK):
            try:
                data: bytes | None = os.read(pipe, _CHUNK)
            except BlockingIOError:
                data = None
            self.outputs[pipe] += data or b""
            if not data or len(data) < _CHUNK:
                break
        return data

    def _over(self, meter: Meter) -> Verdict | None:
        """The verdict for a limit that the process tree exceeds now; None if it exceeds none."""
        now = meter.usage(self.budget.memory_bytes)
        cpu = max(now.cpu_seconds, self.peak.cpu_seconds)
        memory = max(now.memory_bytes, self.peak.memory_bytes)
        self.peak = Usage(cpu, memory, now.threads)
        if time.monotonic() - self.started > self.budget.wall_seconds or cpu > self.budget.cpu_seconds:
            return Verdict.timeout
        if memory > self.budget.memory_bytes:
            return Verdict.memory_exceeded
        if now.threads > self.budget.threads:
            return Verdict.runtime_error
        if self.budget.directory and is_over(self.budget.directory, self.budget.disk_bytes):
            return Verdict.output_exceeded
        return None


def _give(pipe: int, user: int) -> None:
    """Let `user` open a pipe by name, such as /dev/stdin. The program can then open both ends of the pipe, which only lets it
    read back its own output or write to its own input."""
    with contextlib.suppress(OSError):  # not possible under gVisor
        os.fchown(pipe, user, user)


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
