"""The sandbox's Python API: programs in, results out.

    with Sandbox("auto", workers=8) as sandbox:
        for result in sandbox.run(programs):
            print(result.id, result.verdict)

A worker process judges one program at a time; here one thread per worker waits for it.
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
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from typing import Literal, get_args

from sandbox.backends import bubblewrap, docker, process
from sandbox.channel import Channel, Pipe
from sandbox.errors import BackendUnavailable, Cancelled, ImageMissing, SandboxError, ToolsMissing, UsageError
from sandbox.languages import IMAGES, LANGUAGES, language
from sandbox.verdicts import Program, Result, Verdict
from sandbox.worker import Worker

log = logging.getLogger(__name__)

Backend = Literal["auto", "docker", "bubblewrap", "process"]

_ATTEMPTS = 3  # for a program on which the sandbox itself fails
_PAUSE_SECONDS = 5.0  # between attempts, for a daemon to come back
_REMEMBERED = 4096  # results of the latest programs, for identical ones
_LOOK_AHEAD = 2  # batches per worker, one of which it is judging
_BATCH_SECONDS = 0.05  # work that is sent to a worker at once takes about this long
_BATCH_MOST = 32
_CLOSED = "the sandbox was closed before all programs were judged"


class Cancel:
    """Cancels one call of `Sandbox.run` from another thread: its programs are killed, and the call raises `Cancelled`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._busy: set[Worker] = set()
        self.cancelled = False

    def cancel(self) -> None:
        """Kill the call's programs. Idempotent; no effect on a call that has ended."""
        with self._lock:  # so that no worker passes to another call meanwhile
            self.cancelled = True
            for worker in self._busy:
                worker.interrupt()

    def check(self) -> None:
        """Raise `Cancelled` after `cancel`."""
        if self.cancelled:
            raise Cancelled("the call was cancelled")

    @contextmanager
    def busy(self, worker: Worker) -> Iterator[None]:
        """While the worker judges programs of the call. Raises `Cancelled`."""
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

    `backend`: how programs are isolated. "auto" takes "docker" if it is ready, else "bubblewrap", and never "process", which
    isolates nothing.
    `docker_runtime`: another runtime of backend docker, such as "runsc". `patience`: seconds to wait for a Docker
    daemon that has ended and may be restarting, before another backend is taken or `BackendUnavailable` raised. Raises `UsageError` for
    wrong arguments.

    Use it as a context manager, which ends the workers. Several threads may call `run` at once.
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
        self.backend, start = _choose(backend, docker_runtime, patience)
        # A slot judges one program at a time: it has a worker for each image, one of which is busy.
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

    def close(self) -> None:
        """End the workers; programs that are still running are killed."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.stop()
        self._threads.shutdown(wait=True)
        for worker in self._workers:
            worker.close()

    def missing_tools(self, name: str) -> tuple[str, ...]:
        """The tools and files of language `name` that are missing where programs run. Raises `UsageError`."""
        image = language(name).image
        if name not in self._missing:
            try:
                with self._worker(name) as worker:
                    self._missing[name] = worker.missing(name)
            except ImageMissing:
                self._missing[name] = (
                    f"the Docker image {docker.tag(image)} (python -m sandbox build {image})",
                )
        return self._missing[name]

    def need(self, name: str) -> None:
        """Raise `ToolsMissing` if tools of language `name` are missing, `UsageError` if it is unknown."""
        if missing := self.missing_tools(name):
            packages = " ".join(language(name).packages)
            remedy = "" if self.backend == docker.NAME else f" (Debian, Ubuntu: apt-get install {packages})"
            raise ToolsMissing(
                f"language {name!r} needs {', '.join(missing)}, not found by sandbox backend {self.backend!r}{remedy}"
            )

    def _need_checker(self, checker: str, program: Program) -> None:
        """Raise `ToolsMissing` or `UsageError` if a checker in language `checker` cannot run where `program` runs."""
        self.need(checker)
        name, other = language(program.language), language(checker)
        if (
            self.backend == docker.NAME and other.name != "py" and other.image != name.image
        ):  # all images have Python
            raise UsageError(
                f"program {program.id}: its checker is in {other.name}, and backend docker's image of {name.name} has only "
                f"{', '.join(row.name for row in LANGUAGES.values() if row.image == name.image)} and py; write it in one of these"
            )

    def identity(self, name: str) -> str:
        """A line for cache keys, by the same rule for all backends: the versions of the language's tools and libraries, as reported where
        programs run, and a digest of the language's row and `languages.JUDGE_VERSION`.

        It does not depend on the bytes of this package's code or an image's id, so a changed comment changes no key. Raises
        `ToolsMissing`, `UsageError`.
        """
        self.need(name)
        if name not in self._identities:
            with self._worker(name) as worker:
                self._identities[name] = worker.identity(name)
        return self._identities[name]

    def run(self, programs: Iterable[Program], cancel: Cancel | None = None) -> Iterator[Result]:
        """Judge programs and yield one result for each, in the order in which they finish.

        Programs that differ only in `id`, within the last `_REMEMBERED` programs, are run once; the others get the same result,
        marked `cached`. A timeout, and the failure of a checker, is confirmed by a second run after all others, with at most half as many
        programs at once as there are processors. If the sandbox itself fails three times, the verdict is `sandbox_error`. Raises `UsageError` for an unknown
        language, `ToolsMissing` for one that cannot be run, `BackendUnavailable` if the backend (docker's daemon) has ended and does not
        come back, `SandboxError` if the sandbox is closed meanwhile. If the iterator is closed, or `cancel` used (`Cancelled`), the
        programs that are still running are killed.
        """
        known: OrderedDict[str, Result] = OrderedDict()
        twins: dict[str, list[str]] = {}  # by content: ids that wait for the result of an identical program
        contents: dict[int, str] = {}  # by id() of the programs that are being judged
        ready: list[Result] = []
        slow: list[Program] = []
        call = cancel or Cancel()

        def distinct() -> Iterator[Program]:
            for program in programs:
                self.need(program.language)
                if program.checker:
                    self._need_checker(program.checker.language, program)
                if self.backend == docker.NAME:
                    docker.check(program)
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
            failed = (
                program.checker and result.verdict is Verdict.sandbox_error
            )  # perhaps because it ran out of time
            if result.verdict is Verdict.timeout or failed:
                slow.append(program)
            else:
                yield from settle(program, result)
            yield from ready
            ready.clear()
        yield from ready
        for program, result in self._confirm(slow, call):
            yield from settle(program, result)

    def _confirm(self, programs: Sequence[Program], call: Cancel) -> Iterator[tuple[Program, Result]]:
        """Judge programs again, at most half as many at once as there are processors, so that none is slow because of another."""
        if not programs:
            return
        most = max(1, min(len(self._workers) // len(IMAGES), len(os.sched_getaffinity(0)) // 2))
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
        batches, workers = self._batches(programs), len(self._workers) // len(IMAGES)
        try:
            while True:
                if self._closed:
                    raise SandboxError(_CLOSED)
                for batch in itertools.islice(batches, _LOOK_AHEAD * workers - len(running)):
                    running[self._threads.submit(self._judge_batch, batch, call)] = batch
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
        """Batches of consecutive programs of one language, of about `_BATCH_SECONDS`, estimated from the language's last batch."""
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
        """Judge a batch on a free worker; if the sandbox fails, judge the rest of it one by one."""
        started, results = time.monotonic(), []
        if len(batch) > 1:
            try:
                with self._worker(batch[0].language) as worker, call.busy(worker):
                    results = worker.judge(batch)
            except SandboxError as error:
                call.check()
                log.warning("%d programs, which are tried again one by one: %s", len(batch), error)
        results += [self._judge(program, call) for program in batch[len(results) :]]
        seconds = (time.monotonic() - started) / len(batch)
        self._batch_sizes[batch[0].language] = max(1, min(_BATCH_MOST, int(_BATCH_SECONDS / seconds)))
        return results

    def _judge(self, program: Program, call: Cancel) -> Result:
        """Judge one program on a free worker, with retries. The verdict is `sandbox_error` if the sandbox fails in all attempts."""
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
                    if isinstance(error, BackendUnavailable):  # it does not depend on the program
                        if attempt + 1 == _ATTEMPTS:
                            raise
                        time.sleep(_PAUSE_SECONDS)
        return Result(program.id, Verdict.sandbox_error, stderr=message)

    @contextmanager
    def _worker(self, name: str) -> Iterator[Worker]:
        """A worker for language `name`, for exclusive use."""
        slot = self._idle.get()
        try:
            yield slot[language(name).image]
        finally:
            self._idle.put(slot)


def content_key(program: Program) -> str:
    """A digest of all that a program's verdict depends on besides the tools: everything but its `id`."""
    limits = program.limits or language(program.language).limits
    content = program.to_json() | {"id": None, "limits": asdict(limits)}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _choose(
    backend: str, docker_runtime: str | None, patience: float
) -> tuple[str, Callable[[str], Channel]]:
    """The name of the chosen backend, and a function that starts a worker for the languages of an image."""
    if backend == process.NAME:
        return backend, _piped(process.command())
    if backend == bubblewrap.NAME:
        return backend, _piped(bubblewrap.command())
    if backend == docker.NAME:
        docker.image_digest(docker.connect(patience))
        return backend, lambda image: docker.start(image, docker_runtime)
    if backend != "auto":
        raise UsageError(f"unknown sandbox backend {backend!r}; known: {', '.join(get_args(Backend))}")
    reasons = []
    for name in (docker.NAME, bubblewrap.NAME):
        try:
            return _choose(name, docker_runtime, patience)
        except BackendUnavailable as error:
            reasons.append(str(error))
    raise BackendUnavailable(f"no sandbox backend on this machine: {'; '.join(reasons)}; {_REMEDY}")


def _piped(command: tuple[str, ...]) -> Callable[[str], Channel]:
    """A function that starts a worker process, the same for every image: the tools are the machine's."""
    return lambda _: Pipe(command)


_REMEDY = (
    "install bubblewrap (Debian, Ubuntu: apt-get install bubblewrap), "
    "or name backend 'process' for programs that you trust"
)
