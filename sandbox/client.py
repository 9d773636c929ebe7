"""The sandbox's Python API: judges many programs in parallel on worker processes.

    with Sandbox("auto", workers=8) as sandbox:
        for result in sandbox.run(programs):
            print(result.id, result.verdict)

A worker process judges one program at a time. In the caller's process, one thread per worker waits for the worker's answers.
"""

import hashlib
import itertools
import json
import logging
import os
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial

from sandbox.backends import docker
from sandbox.backends.backend import Backend, choose
from sandbox.errors import BackendUnavailable, Cancelled, ImageMissing, SandboxError, ToolsMissing, UsageError
from sandbox.languages import IMAGES, LANGUAGES, language
from sandbox.verdicts import Program, Result, Verdict
from sandbox.worker import Worker

log = logging.getLogger(__name__)

_ATTEMPTS = 3  # for each program on which the sandbox itself fails
_PAUSE_SECONDS = 5.0  # between attempts if the backend is unavailable, so that a Docker daemon can restart
_REMEMBERED = 4096  # results that are remembered for identical programs
_LOOK_AHEAD = 2  # batches read ahead per worker, including the one that the worker is judging
_BATCH_SECONDS = 0.05  # how long a worker should need for a batch
_BATCH_MOST = 32  # programs in a batch
_CLOSED = "the sandbox was closed before all programs were judged"


class Cancel:
    """Cancels one call of `Sandbox.run` from another thread: kills the programs of that call, which then raises `Cancelled`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._busy: set[Worker] = set()
        self.cancelled = False

    def cancel(self) -> None:
        """Kill the call's programs. Idempotent; no effect on a call that has ended."""
        with self._lock:  # no worker may start on another call's programs meanwhile
            self.cancelled = True
            for worker in self._busy:
                worker.interrupt()

    def check(self) -> None:
        """Raise `Cancelled` if `cancel` has been called."""
        if self.cancelled:
            raise Cancelled("the call was cancelled")

    @contextmanager
    def busy(self, worker: Worker) -> Iterator[None]:
        """A context in which `worker` judges programs of the call, so that `cancel` can kill them. Raises `Cancelled`."""
        with self._lock:
            self.check()
            self._busy.add(worker)
        try:
            yield
        finally:
            with self._lock:
                self._busy.discard(worker)


class Sandbox:
    """Judges programs on `workers` worker processes, each busy with one program at a time.

    `backend`: how programs are isolated. "auto" means "docker" if a daemon answers and the image is built, else "bubblewrap". It
    never means "process", which isolates nothing.
    `docker_runtime`: another OCI runtime for backend docker, such as "runsc".
    `patience`: seconds to wait for a Docker daemon that has ended and may be restarting; then "auto" tries the next backend.

    Raises `UsageError` for wrong arguments, `BackendUnavailable`. Use the sandbox as a context manager, which ends the workers.
    Several threads may call `run` at once.
    """

    def __init__(
        self,
        backend: Backend = "auto",
        workers: int = 1,
        docker_runtime: str | None = None,
        patience: float = 0.0,
    ) -> None:
        if workers < 1:
            raise UsageError(f"workers must be at least 1, got {workers}")
        self.workers = workers
        self.backend, start = choose(backend, docker_runtime, patience)
        # A slot has one worker for each image and judges one program at a time, so at most one of its workers is busy.
        slots = [{image: Worker(partial(start, image)) for image in IMAGES} for _ in range(workers)]
        self._workers = [worker for slot in slots for worker in slot.values()]
        self._idle: queue.SimpleQueue[dict[str, Worker]] = queue.SimpleQueue()
        for slot in slots:
            self._idle.put(slot)
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="sandbox")
        self._closed = False
        self._batch_sizes: dict[str, int] = {}
        self._missing: dict[str, tuple[str, ...]] = {}
        self._identities: dict[str, str] = {}

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def hang_up(self) -> None:
        """Kill the programs that are running, and end their workers for good, from another thread; waits for nothing. Calls of `run`
        raise `SandboxError`."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.stop()

    def close(self) -> None:
        """End the workers; programs that are still running are killed."""
        self.hang_up()
        self._threads.shutdown(wait=True)
        slots = [self._idle.get() for _ in range(self.workers)]  # until no caller waits for an answer either
        for worker in self._workers:
            worker.close()
        for slot in slots:  # a later call gets one, and an error from it
            self._idle.put(slot)

    def missing_tools(self, name: str) -> tuple[str, ...]:
        """The tools and files of language `name` that are missing on the machine or in the image. Raises `UsageError`."""
        image = language(name).image
        if name not in self._missing:
            try:
                with self._worker(name) as worker:
                    self._missing[name] = worker.missing(name)
            except ImageMissing:
                lacking = f"the Docker image {docker.tag(image)} (python -m sandbox build {image})"
                self._missing[name] = (lacking,)
        return self._missing[name]

    def need(self, name: str) -> None:
        """Raise `ToolsMissing` if tools of language `name` are missing, `UsageError` if there is no such language."""
        if missing := self.missing_tools(name):
            packages = " ".join(language(name).packages)
            remedy = "" if self.backend == docker.NAME else f" (Debian, Ubuntu: apt-get install {packages})"
            raise ToolsMissing(
                f"language {name!r} needs {', '.join(missing)}, not found by sandbox backend {self.backend!r}{remedy}"
            )

    def check(self, program: Program) -> None:
        """Raise `UsageError` or `ToolsMissing` if this sandbox cannot run the program or its checker. Starts a worker when it sees a
        language for the first time."""
        self.need(program.language)
        if program.checker:
            self._need_checker(program.checker.language, program)
        if self.backend == docker.NAME:
            docker.check(program)

    def _need_checker(self, checker: str, program: Program) -> None:
        """Raise `ToolsMissing` or `UsageError` if a checker in language `checker` cannot run in the container of `program`."""
        self.need(checker)
        name, other = language(program.language), language(checker)
        # All images have Python.
        if self.backend == docker.NAME and other.name != "py" and other.image != name.image:
            raise UsageError(
                f"program {program.id}: its checker is in {other.name}, and backend docker's image of {name.name} has only "
                f"{', '.join(row.name for row in LANGUAGES.values() if row.image == name.image)} and py; write it in one of these"
            )

    def identity(self, name: str) -> str:
        """One line of text that cache keys include. It names the versions of the language's tools and libraries, as the worker
        reports them, and contains a digest of the language's row and of `languages.JUDGE_VERSION`.

        The rule is the same for all backends. The identity does not depend on the bytes of this package's code or on an image's
        id, so a changed comment changes no cache key. Raises `ToolsMissing`, `UsageError`.
        """
        self.need(name)
        if name not in self._identities:
            with self._worker(name) as worker:
                self._identities[name] = worker.identity(name)
        return self._identities[name]

    def run(self, programs: Iterable[Program], cancel: Cancel | None = None) -> Iterator[Result]:
        """Judge programs and yield one result for each, in the order in which they finish.

        - Duplicates: of programs that differ only in `id`, one is run; the others get a copy of its result with `cached` set.
          This holds within the last `_REMEMBERED` results.
        - A timeout, or the failure of a checker, is confirmed by a second run after all other programs, with at most half as many
          programs at once as there are processors.
        - If the sandbox itself fails on a program three times, the verdict is `sandbox_error`.
        - When the caller closes the iterator or uses `cancel`, the programs that are still running are killed.

        Raises `UsageError` for an unknown language, `ToolsMissing` for a language whose tools are missing, `BackendUnavailable`
        if the backend (Docker's daemon) has ended and does not come back, `Cancelled`, `SandboxError` if another thread closes
        the sandbox.
        """
        if isinstance(programs, Sequence) and len(programs) == 1:
            yield self._alone(programs[0], cancel or Cancel())
            return
        known: OrderedDict[str, Result] = OrderedDict()  # by content
        twins: dict[str, list[str]] = {}  # by content: the ids of duplicates that wait for the result
        contents: dict[int, str] = {}  # by id() of a program that is being judged: its content
        ready: list[Result] = []
        slow: list[Program] = []
        call = cancel or Cancel()

        def distinct() -> Iterator[Program]:
            for program in programs:
                self.check(program)
                content = content_key(program)
                if content in known:
                    ready.append(replace(known[content], id=program.id, cached=True))
                elif content in twins:
                    twins[content].append(program.id)
                else:
                    twins[content], contents[id(program)] = [], content
                    yield program

        def settle(program: Program, result: Result) -> Iterator[Result]:
            content = contents.pop(id(program))
            known[content] = result
            if len(known) > _REMEMBERED:
                known.popitem(last=False)
            yield result
            yield from (replace(result, id=other, cached=True) for other in twins.pop(content))

        for program, result in self._in_parallel(distinct(), call):
            if _unsure(program, result):
                slow.append(program)
            else:
                yield from settle(program, result)
            yield from ready
            ready.clear()
        yield from ready
        for program, result in self._confirm(slow, call):
            yield from settle(program, result)

    def _alone(self, program: Program, call: Cancel) -> Result:
        """Judge the only program of a call, in the caller's thread, because handing it to another one costs more than the rest of
        a call."""
        self.check(program)
        result = self._judge(program, call)
        if _unsure(program, result):
            [(_, result)] = self._confirm([program], call)
        return result

    def _confirm(self, programs: Sequence[Program], call: Cancel) -> Iterator[tuple[Program, Result]]:
        """Judge programs again, at most half as many at once as there are processors, so that none slows another down."""
        if not programs:
            return
        most = max(1, min(self.workers, len(os.sched_getaffinity(0)) // 2))
        with ThreadPoolExecutor(most, thread_name_prefix="confirm") as threads:
            try:
                again = threads.map(partial(self._judge, call=call), programs)
                yield from zip(programs, again, strict=True)
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                call.cancel()
                raise

    def _in_parallel(self, programs: Iterator[Program], call: Cancel) -> Iterator[tuple[Program, Result]]:
        """Judge programs on all workers, reading only `_LOOK_AHEAD` batches per worker from the iterator."""
        running: dict[Future[list[Result]], list[Program]] = {}
        batches, workers = self._batches(programs), self.workers
        try:
            while True:
                if self._closed:
                    raise SandboxError(_CLOSED)
                for batch in itertools.islice(batches, _LOOK_AHEAD * workers - len(running)):
                    try:
                        running[self._threads.submit(self._judge_batch, batch, call)] = batch
                    except RuntimeError as error:  # closed since the line above
                        raise SandboxError(_CLOSED) from error
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    if future.cancelled():
                        raise SandboxError(_CLOSED)
                    yield from zip(running.pop(future), future.result(), strict=True)
        finally:
            for future in running:
                future.cancel()
            if running:  # nobody waits for their results
                call.cancel()

    def _batches(self, programs: Iterator[Program]) -> Iterator[list[Program]]:
        """Batches of consecutive programs in one language. A batch should take about `_BATCH_SECONDS`; its size is estimated from
        the last batch in that language."""
        batch: list[Program] = []
        for program in programs:
            if batch and batch[0].language != program.language:
                yield batch
                batch = []
            batch.append(program)
            if len(batch) >= self._batch_sizes.get(program.language, 1):
                yield batch
                batch = []
        if batch:
            yield batch

    def _judge_batch(self, batch: list[Program], call: Cancel) -> list[Result]:
        """Judge a batch on a free worker. If the sandbox fails on a program, judge it and the programs after it one by one."""
        started, results = time.monotonic(), []
        if len(batch) > 1:
            try:
                with self._worker(batch[0].language) as worker, call.busy(worker):
                    results = worker.judge(batch)
            except SandboxError as error:
                call.check()
                log.warning("a batch of %d, whose programs are tried again one by one: %s", len(batch), error)
        results += [self._judge(program, call) for program in batch[len(results) :]]
        self._batch_sizes[batch[0].language] = _batch_size((time.monotonic() - started) / len(batch))
        return results

    def _judge(self, program: Program, call: Cancel) -> Result:
        """Judge one program on a free worker. The verdict is `sandbox_error` if the sandbox fails in `_ATTEMPTS` attempts."""
        with self._worker(program.language) as worker:
            for attempt in range(_ATTEMPTS):
                try:
                    with call.busy(worker):
                        return worker.judge([program])[0]
                except SandboxError as error:
                    call.check()
                    if self._closed:
                        raise SandboxError(_CLOSED) from error
                    log.warning("program %s, attempt %d of %d: %s", program.id, attempt + 1, _ATTEMPTS, error)
                    message = str(error)
                    if isinstance(error, BackendUnavailable):  # not the program's fault
                        if attempt + 1 == _ATTEMPTS:
                            raise
                        time.sleep(_PAUSE_SECONDS)
        return Result(program.id, Verdict.sandbox_error, stderr=message)

    @contextmanager
    def _worker(self, name: str) -> Iterator[Worker]:
        """A context with exclusive use of a worker for language `name`. Waits until one is free."""
        slot = self._idle.get()
        try:
            yield slot[language(name).image]
        finally:
            self._idle.put(slot)


def _batch_size(seconds: float) -> int:
    """The number of programs of a batch, where each takes `seconds`."""
    return max(1, min(_BATCH_MOST, int(_BATCH_SECONDS / seconds)))


def _unsure(program: Program, result: Result) -> bool:
    """Whether a second run has to confirm `result`: a timeout, or the failure of a checker, which may be a timeout of the checker."""
    failed = program.checker is not None and result.verdict is Verdict.sandbox_error
    return failed or Verdict.timeout in (result.verdict, *(case.verdict for case in result.cases))


def content_key(program: Program) -> str:
    """A digest of the program without its `id`, with the language's default limits filled in. Equal digests mean duplicates."""
    limits = program.limits or language(program.language).limits
    content = program.to_json() | {"id": None, "limits": asdict(limits)}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
