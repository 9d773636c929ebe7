"""Runs the programs of HTTP requests on one sandbox, with a bounded queue, cancellation and metrics."""

import asyncio
import logging
import signal
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from fastapi import HTTPException, Request

from sandbox.checking import CHECKER_FAILED
from sandbox.client import Cancel, Sandbox
from sandbox.encoding import encoded, is_text
from sandbox.errors import SandboxError, ToolsMissing, UsageError
from sandbox.exchange import content_of
from sandbox.languages import language, likely_name
from sandbox.serve.guard import RETRY_AFTER_SECONDS
from sandbox.serve.metrics import Metrics
from sandbox.verdicts import MIB, Limits, Program, Result, Verdict

log = logging.getLogger(__name__)

HUNG_UP = 499
"""The HTTP status of a request whose client has disconnected (so nobody reads it)."""


CEILINGS = Limits(
    cpu_seconds=120,
    wall_seconds=360,
    compile_cpu_seconds=120,
    compile_wall_seconds=360,
    memory_bytes=2048 * MIB,
    output_bytes=64 * MIB,
    file_bytes=256 * MIB,
    processes=1024,
)
"""The largest limits that a request may ask for."""
LEAST_MEMORY_BYTES = 16 * MIB
"""The smallest limit on memory; with less, no isolated process can be set up, and that would look like a failure of the sandbox."""
_TITLES = {
    "cpu_seconds": "seconds of a run",
    "compile_cpu_seconds": "seconds of compilation",
    "memory_bytes": "bytes of memory",
}
"""Names of limits for people; the others are called as in `Limits`."""
MOST_PROGRAMS = 1000
"""The most programs, or tests, in one request."""
MOST_CASES = 1000
"""The most cases of one program."""
_AHEAD = 64
"""How many programs of one request may be under way or judged but not yet sent, so that a client that does not read its results
takes no memory."""


class Service:
    """Serves requests with one sandbox. All its workers run programs, and at most `queue` programs wait; then requests get 503.
    `audit`: which programs with tests are audited, a rule of `sandbox.twin.chosen`, unless a request says so itself."""

    def __init__(self, sandbox: Sandbox, queue: int, audit: str = "off") -> None:
        self.sandbox, self.queue, self.audit = sandbox, queue, audit
        self.metrics = Metrics()
        self._slots = asyncio.Semaphore(sandbox.workers)
        self._threads = ThreadPoolExecutor(sandbox.workers, thread_name_prefix="serve")
        self._checks = ThreadPoolExecutor(2, thread_name_prefix="check")  # apart from the threads that cancel
        self._accepted = 0
        # Languages of programs and of their checkers that can be run.
        self._checked: set[tuple[str, str | None]] = set()

    def close(self) -> None:
        """End the threads. Close the sandbox first."""
        for threads in (self._threads, self._checks):
            threads.shutdown(wait=True)

    def limits(
        self, name: str, run: float | None, compile: float | None, memory: int | None
    ) -> Limits | None:
        """The limits of a program in language `name`; None if the request gives none.

        `run`, `compile`: the request's time limits in seconds; `memory`: its memory limit in bytes; None: not given. A time limit
        becomes a limit on CPU time, because wall-clock time on a busy machine says nothing about the program; the limit on
        wall-clock time is two seconds more for a run (and see `judge`), and three times as much for a compiler, which does not sleep.
        Raises HTTPException 422 for a limit above the ceilings.
        """
        asked = {"cpu_seconds": run, "compile_cpu_seconds": compile, "memory_bytes": memory}
        given = {name: value for name, value in asked.items() if value is not None}
        if not given:
            return None
        check_ceilings(given)
        limits = language(name).limits
        if run is not None:
            limits = replace(limits, cpu_seconds=run, wall_seconds=run + 2)
        if compile is not None:
            limits = replace(limits, compile_cpu_seconds=compile, compile_wall_seconds=3 * compile)
        return replace(limits, memory_bytes=memory) if memory is not None else limits

    async def check(self, programs: Sequence[Program]) -> None:
        """Raise HTTPException 422 if this server does not run one of the programs: its limits are above the ceilings, or tools of its
        language or of its checker's are missing; 504 if the sandbox fails to tell."""
        for program in programs:
            check_count("cases", len(program.cases), MOST_CASES)
            if program.limits:
                usual = vars(language(program.language).limits)
                own = {name: value for name, value in vars(program.limits).items() if value != usual[name]}
                check_ceilings(own)
        kinds = {(one.language, one.checker.language if one.checker else None): one for one in programs}
        new = [program for kind, program in kinds.items() if kind not in self._checked]
        if not new:
            return
        try:
            # In a thread, since a worker has to start and be asked.
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._checks, list, map(self.sandbox.check, new))
        except ToolsMissing as error:
            raise HTTPException(422, f"this server cannot run it: {error}") from error
        except UsageError as error:
            raise HTTPException(422, str(error)) from error
        except SandboxError as error:
            raise _not_judged(str(error)) from error
        self._checked |= kinds.keys()

    async def judge(
        self, request: Request, programs: Sequence[Program], wait_seconds: float | None = None
    ) -> list[Result]:
        """The results of `programs`, in the order of `programs`. `wait_seconds`: how long a run may sleep or wait; None: up to the
        limit on wall-clock time.

        Raises HTTPException 503 if the queue is full, 504 if the sandbox failed on a program after its retries; the client may
        try again. A failure of the sandbox is never reported as a failure of the program.
        """
        if len(programs) == 1:
            results = [await self._alone(request, programs[0])]
        else:
            found = {result.id: result async for result in await self.start(request, programs)}
            results = [found[program.id] for program in programs]
        for result in results:
            check_judged(result)
        return results if wait_seconds is None else [waited(result, wait_seconds) for result in results]

    async def _accept(self, programs: Sequence[Program]) -> None:
        """Count `programs` as accepted. Raises HTTPException 422 as `check` does, 503 if the queue is full."""
        await self.check(programs)
        waiting = max(self._accepted + len(programs) - self.sandbox.workers, 0)
        if waiting > self.queue:
            self.metrics.refused.inc()
            raise HTTPException(
                503,
                f"the queue is full: with the {len(programs)} of this request {waiting} programs would wait, allowed are {self.queue}",
                {"Retry-After": str(RETRY_AFTER_SECONDS)},
            )
        self._count(len(programs))

    async def _alone(self, request: Request, program: Program) -> Result:
        """What `start` does, for the only program of a request, in a third of the time."""
        await self._accept([program])
        judging = asyncio.create_task(self._one(program))
        judging.add_done_callback(lambda _: self._count(-1))
        gone = asyncio.create_task(_cancel_when_gone(request, [judging]))
        try:
            await asyncio.wait((judging,))
        finally:
            gone.cancel()
            if not judging.done() or judging.cancelled():
                judging.cancel()
                self.metrics.cancelled.inc()
        if judging.cancelled():
            raise HTTPException(HUNG_UP, "the client hung up")
        return judging.result()

    async def start(self, request: Request, programs: Sequence[Program]) -> AsyncIterator[Result]:
        """Accept `programs`, and return their results in the order in which they finish; `sandbox_error` if the sandbox failed on a
        program. When the client disconnects, its programs are killed. Raises HTTPException 422 as `check` does, 503 if the queue is
        full."""
        await self._accept(programs)
        done: asyncio.Queue[asyncio.Task[Any]] = asyncio.Queue()
        room = asyncio.Semaphore(_AHEAD)

        async def judge(program: Program) -> Result:
            await room.acquire()  # until `results` has handed the result on
            return await self._one(program)

        tasks = [asyncio.create_task(judge(program)) for program in programs]
        for task in tasks:
            task.add_done_callback(lambda _: self._count(-1))
            task.add_done_callback(done.put_nowait)
        # It kills the programs even if nobody ever asks for the first result.
        gone = asyncio.create_task(_cancel_when_gone(request, tasks))
        gone.add_done_callback(done.put_nowait)

        async def results() -> AsyncIterator[Result]:
            left = len(tasks)
            try:
                while left:
                    task = await done.get()
                    if task is gone or task.cancelled():
                        raise HTTPException(HUNG_UP, "the client hung up")
                    yield task.result()
                    left -= 1
                    room.release()
            finally:
                if left:
                    self.metrics.cancelled.inc()
                for other in (*tasks, gone):
                    other.cancel()
                await asyncio.gather(*tasks, gone, return_exceptions=True)

        return results()

    async def _one(self, program: Program) -> Result:
        """Judge one program as soon as a worker is free. If this task is cancelled, the program is killed."""
        accepted = time.monotonic()
        await self._slots.acquire()
        cancel, started = Cancel(), time.monotonic()
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(self._threads, self._judge, program, cancel)
        work.add_done_callback(self._ended)
        self.metrics.running.inc()
        try:
            result = await asyncio.shield(work)
        except asyncio.CancelledError:
            loop.run_in_executor(None, cancel.cancel)
            raise
        except SandboxError as error:
            log.warning("the sandbox failed on a program: %s", error)
            result = Result(program.id, Verdict.sandbox_error, stderr=str(error))
        self.metrics.judged(program.language, result, started - accepted, time.monotonic() - started)
        return result

    def _ended(self, work: asyncio.Future[Result]) -> None:
        """Free the worker of a program that has ended, also one whose client did not wait for its end."""
        self._slots.release()
        self.metrics.running.dec()
        if not work.cancelled():
            work.exception()  # nobody else may ask for it

    def _judge(self, program: Program, cancel: Cancel) -> Result:
        (result,) = self.sandbox.run([program], cancel)
        return result

    def _count(self, change: int) -> None:
        self._accepted += change
        self.metrics.queued.set(max(self._accepted - self.sandbox.workers, 0))


_SIGNALS = frozenset(signal.Signals)


def signal_of(exit_code: int) -> int | None:
    """The signal that an exit code of 128 + n stands for; None if the program ended by itself, also with a larger exit code."""
    return exit_code - 128 if exit_code - 128 in _SIGNALS else None


def waited(result: Result, seconds: float) -> Result:
    """`result`, with verdict `timeout` if the program's run was not computing for longer than `seconds`. For a program that computes
    too, this is less strict than a limit on wall-clock time, which it might exceed only because the machine is busy."""
    ran = result.ran
    if ran is None or ran.seconds - ran.cpu_seconds <= seconds:
        return result
    return replace(result, verdict=Verdict.timeout, exit_code=None)


def check_judged(result: Result) -> None:
    """Raise HTTPException 504 if the sandbox failed on the program. That its checker failed is a result: a client that tried again
    would get the same."""
    if not result.verdict.is_label and result.note != CHECKER_FAILED:
        raise _not_judged(result.stderr)


def check_count(what: str, count: int, most: int = MOST_PROGRAMS) -> None:
    """Raise HTTPException 422 if there are more than `most` of something in a request."""
    if count > most:
        raise HTTPException(422, f"{what}: got {count}, allowed are at most {most}")


def check_named(program: Program) -> None:
    """Raise ValueError where a file has the name of the program's own source, which would be there in its place, or where the name
    of a file to fetch is not UTF-8, so that no JSON answer can hold it."""
    row = language(program.language)
    own = PurePosixPath(row.file.replace("{name}", likely_name(row, program.source)))
    for name, content in program.files:
        if PurePosixPath(name) == own and content_of(content) != encoded(program.source):
            taken = f"{str(own)!r} is the program's own name here"
            raise ValueError(f"files: {taken}; give this file another one")
    for name in program.fetch:
        if not is_text(encoded(name)):
            raise ValueError(f"fetch_files: expected names in UTF-8, got {name[:80]!r}")


def check_ceilings(given: Mapping[str, float]) -> None:
    """Raise HTTPException 422 if a limit, by its name in `Limits`, is not above 0 (memory: too small) or is above `CEILINGS`."""
    for name, value in given.items():
        most = getattr(CEILINGS, name)
        least = LEAST_MEMORY_BYTES if name == "memory_bytes" else 0
        if not least <= value <= most or value == 0:
            from_least = f"at least {least}" if least else "more than 0"
            got = f"{value:g}" if abs(value) < 1e15 else "a number of more than 15 digits"
            raise HTTPException(
                422, f"{_TITLES.get(name, name)}: got {got}, allowed is {from_least} and at most {most:.12g}"
            )


def _not_judged(reason: str) -> HTTPException:
    """The answer where the sandbox failed; the client may try again."""
    return HTTPException(504, f"the sandbox failed, the program was not judged: {reason[-500:]}")


async def _cancel_when_gone(request: Request, tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Wait until the client has closed its connection, then cancel `tasks`. The request's body must have been read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    for task in tasks:
        task.cancel()
