"""Scores the candidates of many requests together; the prompt that several requests have is computed once."""

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from selftrain.rerank.normal import Normal
from selftrain.serve.metrics import Metrics
from selftrain.serve.served import Problem, Ranked, Served

log = logging.getLogger(__name__)

MOST_TOGETHER = 512
"""Candidates that are scored together, unless one request alone has more: more would only make the first request wait longer."""


class QueueFull(Exception):
    """Too many candidates wait. `waiting`: how many."""

    def __init__(self, waiting: int) -> None:
        super().__init__(waiting)
        self.waiting = waiting


class Ended(Exception):
    """Nothing is scored any more. The text says why."""


@dataclass(eq=False)
class Job:
    """Problems of one request, the reranker that has read them, and the future of their scores [problems]."""

    served: Served
    problems: Sequence[Problem]
    done: asyncio.Future[list[Ranked]]
    given_up: bool = False
    size: int = field(init=False)

    def __post_init__(self) -> None:
        self.size = sum(len(problem.forms) for problem in self.problems)


@dataclass(eq=False)
class _Busy:
    """The jobs that a scoring thread is at, and since when."""

    jobs: Sequence[Job] = ()
    began: float = math.inf


class Batcher:
    """Scores jobs in their order. At most `queue` candidates wait; a job that is larger by itself is accepted if none waits.

    threads  scoring threads. Two use two cores for small models, most of whose time is spent between the products of matrices
    broke    what stopped a thread, if it was not `close`; then all end
    ended    is called by the thread if something stops it
    """

    def __init__(
        self, queue: int, metrics: Metrics, ended: Callable[[], object] = lambda: None, threads: int = 1
    ) -> None:
        import torch

        self.queue, self.metrics = queue, metrics
        self.broke = ""
        self._ended = ended
        self._jobs: deque[Job] = deque()
        self._waiting = 0  # candidates of `_jobs`
        self._ending = self._over = False
        self._cores = torch.get_num_threads()
        self._changed = threading.Condition()
        self._busy = [_Busy() for _ in range(threads)]
        self._threads = [
            threading.Thread(target=self._work, args=(busy,), name="score", daemon=True)
            for busy in self._busy
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Score what waits, then end the threads."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def fault(self, stuck: float) -> str:
        """What is wrong with a thread: it has ended, or has scored for more than `stuck` seconds; empty where nothing is."""
        if self._over:
            return f"the scoring thread has ended{self.broke and f': {self.broke}'}"
        if time.monotonic() - min(busy.began for busy in self._busy) > stuck:
            return f"the scoring thread has been busy for more than {stuck:g} s"
        return ""

    async def score(self, served: Served, problems: Sequence[Problem]) -> list[Ranked]:
        """Scores [problems] by `served`, which has read them. If this call is cancelled before its turn, nothing is scored.

        Raises QueueFull; Ended, also if the thread ends meanwhile; UsageError as `Served.rank` does.
        """
        job = Job(served, problems, asyncio.get_running_loop().create_future())
        with self._changed:
            if self._over:
                raise Ended(self.fault(math.inf))
            if self._waiting and self._waiting + job.size > self.queue:
                raise QueueFull(self._waiting)
            self._jobs.append(job)
            self._count(job.size)
            self._changed.notify()
        try:
            return await job.done
        except asyncio.CancelledError:
            job.given_up = True
            self.metrics.cancelled.inc()
            raise

    def _count(self, change: int) -> None:
        self._waiting += change
        self.metrics.queued.set(self._waiting)

    def _work(self, busy: _Busy) -> None:
        """A thread."""
        broke = False
        try:
            while jobs := self._next():
                busy.jobs, busy.began = jobs, time.monotonic()
                self._share_cores()
                wanted = [job for job in jobs if not job.given_up]
                for job, outcome in zip(wanted, self._outcomes(wanted), strict=True):
                    _tell(job, outcome)
                busy.jobs, busy.began = (), math.inf
        except BaseException as error:  # also what only ends a thread, such as SystemExit
            broke, self.broke = True, f"{type(error).__name__} {error}".strip()
            log.exception("the scoring thread has ended")
        with self._changed:
            self._over = self._ending = True
            self._changed.notify_all()
            left = (*busy.jobs, *self._jobs)
            self._jobs.clear()
            self._count(-self._waiting)
        for job in left:
            _tell(job, Ended(self.fault(math.inf)))
        if broke:
            self._ended()

    def _share_cores(self) -> None:
        """Let the products of matrices of this thread use an equal share of the cores that torch may use."""
        if len(self._threads) > 1:
            import torch

            busy = sum(each.began < math.inf for each in self._busy)
            torch.set_num_threads(max(1, self._cores // busy))  # of the calling thread

    def _next(self) -> list[Job]:
        """Wait for jobs of one reranker; empty at the end."""
        with self._changed:
            while not self._jobs and not self._ending:
                self._changed.wait()
            taken: list[Job] = []
            size = 0
            while self._jobs and (
                not taken
                or (self._jobs[0].served is taken[0].served and size + self._jobs[0].size <= MOST_TOGETHER)
            ):
                taken.append(self._jobs.popleft())
                size += taken[-1].size
            self._count(-size)
            return taken

    def _outcomes(self, jobs: Sequence[Job]) -> list[list[Ranked] | Exception]:
        """The scores of each job, or why there are none. One job's fault does not become another's."""
        try:
            return list(self._scored(jobs))
        except Exception as error:  # given to those who wait
            if len(jobs) <= 1:
                return [error for _ in jobs]
            return [outcome for job in jobs for outcome in self._outcomes([job])]

    def _scored(self, jobs: Sequence[Job]) -> list[list[Ranked]]:
        """What each job wants to know; each text of a prompt is scored once."""
        if not jobs:
            return []
        # (prompt, language) -> its candidates and their numbers, and what was read of them
        places: dict[tuple[str, str | None], dict[Normal, int]] = {}
        ids: dict[tuple[str, str | None], dict[Normal, list[int]]] = {}
        for problem in (problem for job in jobs for problem in job.problems):
            key = problem.prompt, problem.language
            known = places.setdefault(key, {})
            for form in problem.forms:
                known.setdefault(form, len(known))
            ids.setdefault(key, {}).update(problem.ids)
        together = [Problem(key[0], tuple(forms), key[1], ids[key]) for key, forms in places.items()]
        found = dict(zip(places, jobs[0].served.rank(together), strict=True))
        self.metrics.scored(sum(job.size for job in jobs), sum(map(len, places.values())))

        def of(problem: Problem) -> Ranked:
            key = problem.prompt, problem.language
            return found[key].only([places[key][form] for form in problem.forms])

        return [list(map(of, job.problems)) for job in jobs]


def _tell(job: Job, outcome: list[Ranked] | Exception) -> None:
    """Let the thread of the job's request have the outcome."""
    with suppress(RuntimeError):  # its event loop is closed
        job.done.get_loop().call_soon_threadsafe(_answer, job.done, outcome)


def _answer(done: asyncio.Future[list[Ranked]], outcome: list[Ranked] | Exception) -> None:
    """Set the future, unless its request was given up."""
    if done.done():
        return
    if isinstance(outcome, Exception):
        done.set_exception(outcome)
    else:
        done.set_result(outcome)
