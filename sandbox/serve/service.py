"""Runs the programs of HTTP requests on one sandbox, with a bounded queue, cancellation and metrics."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from fastapi import HTTPException, Request

from sandbox.client import Cancel, Sandbox
from sandbox.errors import SandboxError, ToolsMissing, UsageError
from sandbox.languages import language
from sandbox.serve.metrics import Metrics
from sandbox.verdicts import MIB, Limits, Program, Result, Verdict

log = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = 2
HUNG_UP = 499
"""The HTTP status of a request whose client has disconnected (so nobody reads it)."""


@dataclass(frozen=True)
class Ceilings:
    """The largest values that a request may ask for. `seconds`: CPU time of one run or one compilation. `programs`: programs in
    one request. `body_bytes`: size of the request's body."""

    seconds: float = 120.0
    memory_bytes: int = 2048 * MIB
    programs: int = 1000
    body_bytes: int = 16 * MIB


class Service:
    """Serves requests with one sandbox. `workers` programs run at once, and at most `queue` more wait; then requests get 503."""

    def __init__(self, sandbox: Sandbox, workers: int, queue: int, ceilings: Ceilings) -> None:
        self.sandbox, self.workers, self.queue, self.ceilings = sandbox, workers, queue, ceilings
        self.metrics = Metrics()
        self._slots = asyncio.Semaphore(workers)
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="serve")
        self._accepted = 0

    def close(self) -> None:
        """End the threads. Close the sandbox first."""
        self._threads.shutdown(wait=True)

    def limits(
        self, name: str, run: float | None, compile: float | None, memory: int | None
    ) -> Limits | None:
        """The limits of a program in language `name`; None if the request gives none.

        `run`, `compile`: the request's time limits in seconds; `memory`: its memory limit in bytes; None: not given. A time limit
        becomes a limit on CPU time, because wall-clock time on a busy machine says nothing about the program; the limit on
        wall-clock time is two seconds more. Raises HTTPException 422 for a limit above the ceilings.
        """
        asked = {"seconds of a run": run, "seconds of compilation": compile}
        for what, seconds in asked.items():
            if seconds is not None and not 0 < seconds <= self.ceilings.seconds:
                self._refuse(what, seconds, f"more than 0 and at most {self.ceilings.seconds:g}")
        if memory is not None and not 0 < memory <= self.ceilings.memory_bytes:
            self._refuse("bytes of memory", memory, f"more than 0 and at most {self.ceilings.memory_bytes}")
        if run is compile is memory is None:
            return None
        limits = language(name).limits
        if run is not None:
            limits = replace(limits, cpu_seconds=run, wall_seconds=run + 2)
        if compile is not None:
            limits = replace(limits, compile_cpu_seconds=compile, compile_wall_seconds=compile + 2)
        return replace(limits, memory_bytes=memory) if memory is not None else limits

    def check(self, program: Program) -> None:
        """Raise HTTPException 422 if this server cannot run the program's language, or if its limits are above the ceilings."""
        try:
            row = language(program.language)
            self.sandbox.need(program.language)
        except UsageError as error:
            raise HTTPException(422, str(error)) from error
        except ToolsMissing as error:
            raise HTTPException(422, f"this server cannot run it: {error}") from error
        limits = program.limits
        if limits and limits != row.limits:
            self.limits(program.language, limits.cpu_seconds, limits.compile_cpu_seconds, limits.memory_bytes)

    @staticmethod
    def _refuse(what: str, got: float, allowed: str) -> None:
        raise HTTPException(422, f"{what}: got {got:g}, allowed is {allowed}")

    async def judge(self, request: Request, programs: Sequence[Program]) -> list[Result]:
        """The results of `programs`, in the order of `programs`.

        Raises HTTPException 503 if the queue is full, 504 if the sandbox failed on a program after its retries; the client may
        try again. A failure of the sandbox is never reported as a failure of the program.
        """
        found = {result.id: result async for result in self.stream(request, programs)}
        results = [found[program.id] for program in programs]
        for result in results:
            check_judged(result)
        return results

    async def stream(self, request: Request, programs: Sequence[Program]) -> AsyncIterator[Result]:
        """The results of `programs`, in the order in which they finish; `sandbox_error` if the sandbox failed on a program. When
        the client disconnects, its programs are killed. Raises HTTPException 503 if the queue is full."""
        waiting = max(self._accepted + len(programs) - self.workers, 0)
        if waiting > self.queue:
            self.metrics.refused.inc()
            raise HTTPException(
                503,
                f"the queue is full: with these {len(programs)} programs {waiting} would wait, allowed are {self.queue}",
                {"Retry-After": str(RETRY_AFTER_SECONDS)},
            )
        self._count(len(programs))
        tasks: set[asyncio.Task[Any]] = {asyncio.create_task(self._one(program)) for program in programs}
        gone = asyncio.create_task(_hung_up(request))
        try:
            while tasks:
                done, _ = await asyncio.wait({*tasks, gone}, return_when=asyncio.FIRST_COMPLETED)
                if gone in done:
                    self.metrics.cancelled.inc()
                    raise HTTPException(HUNG_UP, "the client hung up")
                for task in [task for task in tasks if task.done()]:
                    tasks.remove(task)
                    self._count(-1)
                    yield task.result()
        finally:
            self._count(-len(tasks))
            for task in (*tasks, gone):
                task.cancel()
            await asyncio.gather(*tasks, gone, return_exceptions=True)

    async def _one(self, program: Program) -> Result:
        """Judge one program as soon as a worker is free. If this task is cancelled, the program is killed."""
        async with self._slots:
            cancel, started = Cancel(), time.monotonic()
            loop = asyncio.get_running_loop()
            work = loop.run_in_executor(self._threads, self._judge, program, cancel)
            self.metrics.running.inc()
            try:
                result = await asyncio.shield(work)
            except asyncio.CancelledError:
                await loop.run_in_executor(None, cancel.cancel)
                with contextlib.suppress(SandboxError):
                    await work
                raise
            except SandboxError as error:
                log.warning("the sandbox failed on a program: %s", error)
                result = Result(program.id, Verdict.sandbox_error, stderr=str(error))
            finally:
                self.metrics.running.dec()
        self.metrics.judged(program.language, result.verdict, time.monotonic() - started)
        return result

    def _judge(self, program: Program, cancel: Cancel) -> Result:
        (result,) = self.sandbox.run([program], cancel)
        return result

    def _count(self, change: int) -> None:
        self._accepted += change
        self.metrics.queued.set(max(self._accepted - self.workers, 0))


def check_judged(result: Result) -> None:
    """Raise HTTPException 504 if the sandbox failed on the program."""
    if not result.verdict.is_label:
        raise HTTPException(504, f"the sandbox failed, the program was not judged: {result.stderr[-500:]}")


async def _hung_up(request: Request) -> None:
    """Wait until the client has closed its connection. The request's body must have been read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
