"""Works through the steps of a run, each in a thread of its own, as `selftrain.schedule` allows.

The main thread only waits, so that a signal reaches it at any moment. If a step fails, or a signal comes, no further step starts
and those that work are stopped: their child processes and sandboxes end, what they have finished is kept, and the next run resumes
it. The error of the step that failed first is raised.
"""

import contextvars
import queue
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

from selftrain.launch.ending import ENDING
from selftrain.schedule import Schedule
from selftrain.stage import ArtifactRef, Step
from selftrain.stages.ahead import execute_ahead
from selftrain.stages.execute import EXECUTE
from selftrain.stop import STOP, Stop, Stopped
from selftrain.store.store import PROGRESS
from tasks.run import LOGGER, Run

SECONDS_AFTER_SIGNAL, SECONDS_AFTER_FAILURE = 4.0, 60.0
"""Longest wait for steps that were told to stop; after a signal it is less than `ENDING` waits. What does not stop, such as a step
that waits for another run's build of the same artifact, ends with this process."""

Ended = queue.SimpleQueue[tuple[Step, BaseException | None]]
Ahead = Callable[[Step, Step, Callable[[], bool]], None]
EARLY = Step(EXECUTE, "ahead", "ahead", None, {}, ArtifactRef("execute", ""))
"""Stands in the queue of what has ended for the thread that executes candidates while others are sampled."""


class ScheduledRun(Run):
    """A run that only notes its steps when they are planned, and then carries out all of them; a subclass overrides `execute`."""

    def take(self, step: Step) -> None:
        """Only note the step: `complete` knows all of them, and starts each when its inputs are there."""

    def complete(self) -> None:
        """Carry out all steps, side by side where their inputs and `runtime.slots` allow it. Raises the first step's error."""
        self.schedule = Schedule(self.steps.values(), self.config.runtime.slots)
        # With Dask the candidates are on other machines until all are there.
        ahead = None if self.config.runtime.dask is not None else self.ahead
        try:
            carry_out(self.schedule, self.work, self._changed, ahead)
        finally:
            self.unfinished = set(self.schedule.running)
            self.cached.sort(key=list(self.steps).index)

    def ahead(self, step: Step, maker: Step, go_on: Callable[[], bool]) -> None:
        """Execute candidates of `step` while `maker` samples others, unless the store has the executions."""
        if self.store.manifest(step.ref) is not None:
            return
        problems = {"problems": self.path(step.inputs["problems"])}
        context = self.context(step, self.store.work(step.ref), inputs=problems, progress=lambda *_: None)
        sampled = self.store.work(maker.ref) / PROGRESS
        count = execute_ahead(context, sampled, go_on, partial(self.spare, step))
        if count:
            LOGGER.info("%s: %d programs executed while others were sampled", step.label, count)

    def spare(self, step: Step) -> AbstractContextManager[bool]:
        """Hook: takes what `step` needs for a block, without waiting; its value says whether that is free of other runs."""
        return nullcontext(True)

    def _changed(self) -> None:
        """Note which steps are at work, and write run.json when one has begun or ended."""
        working = set(self.schedule.running)
        if working != self.unfinished:
            self.unfinished = working
            self.begun |= working
            self.update()


def carry_out(
    schedule: Schedule,
    work: Callable[[Step], None],
    changed: Callable[[], None],
    ahead: Ahead | None = None,
) -> None:
    """Call `work` for each step, in a thread with this thread's context variables.

    changed  called in this thread whenever steps have ended and others started
    ahead    called in a thread with a step `execute`, the step `sample` that makes its candidates, and a function that says whether
             to go on; None: candidates are executed when all are sampled

    Raises what `work` raised first, after the other steps have ended.
    """
    ended: Ended = queue.SimpleQueue()
    stop, why = Stop(), "stopped, since the run ends"
    at_work: dict[str, Step] = {}
    enough = threading.Event()
    try:
        while True:
            while (step := schedule.take()) is not None:
                at_work[step.name] = step
                _start(step, partial(work, step), stop, ended)
            if ahead is not None and (pair := schedule.take_early()) is not None:
                enough.clear()
                _start(EARLY, partial(ahead, *pair, lambda: not enough.is_set()), stop, ended)
            if schedule.wanted():
                enough.set()
            _tell(at_work)
            changed()
            if not at_work and schedule.early is None:
                return
            step, error = ended.get()
            if step is EARLY:
                schedule.end_early(again=enough.is_set())
                if error is not None:  # the step itself meets it again, or does not
                    LOGGER.warning("candidates are not executed while others are sampled: %s", error)
                continue
            del at_work[step.name]
            if error is not None:
                why = f"stopped, since {step.label} failed"
                raise error
            schedule.end(step.name)
    except BaseException as first:
        stop.stop(why)
        enough.set()
        failed = isinstance(first, Exception)
        _wait(schedule, at_work, ended, SECONDS_AFTER_FAILURE if failed else SECONDS_AFTER_SIGNAL)
        if at_work:
            stop.leave()
        raise


def _wait(schedule: Schedule, at_work: dict[str, Step], ended: Ended, seconds: float) -> None:
    """Wait until the steps have ended that were told to stop, at most `seconds`."""
    deadline = time.monotonic() + seconds
    while at_work or schedule.early is not None:
        _tell(at_work)
        try:
            step, error = ended.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return
        if step is EARLY:
            schedule.end_early(again=False)
            continue
        del at_work[step.name]
        if error is None:
            schedule.end(step.name)
        elif not isinstance(error, Stopped):
            LOGGER.error("%s failed too: %s", step.label, error)


def _tell(at_work: dict[str, Step]) -> None:
    """Name the steps in the message after a signal."""
    if at_work:
        ENDING.doing = ", ".join(step.label for step in at_work.values())


def _start(step: Step, work: Callable[[], None], stop: Stop, ended: Ended) -> None:
    """Call `work` in a thread of its own, and put the step and what `work` raised into `ended`."""

    def body() -> None:
        try:
            work()
        except BaseException as error:
            ended.put((step, error))
        else:
            ended.put((step, None))

    context = contextvars.copy_context()
    context.run(STOP.set, stop)
    # A daemon, so that a step that cannot be stopped does not keep the process from ending.
    threading.Thread(target=context.run, args=(body,), name=step.name, daemon=True).start()
