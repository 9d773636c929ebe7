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

from selftrain.launch.ending import ENDING
from selftrain.schedule import Schedule
from selftrain.stage import Step
from selftrain.stop import STOP, Stop, Stopped
from tasks.run import LOGGER, Run

SECONDS_AFTER_SIGNAL, SECONDS_AFTER_FAILURE = 4.0, 60.0
"""Longest wait for steps that were told to stop; after a signal it is less than `ENDING` waits. What does not stop, such as a step
that waits for another run's build of the same artifact, ends with this process."""

Ended = queue.SimpleQueue[tuple[Step, BaseException | None]]


class ScheduledRun(Run):
    """A run that only notes its steps when they are planned, and then carries out all of them; a subclass overrides `execute`."""

    def take(self, step: Step) -> None:
        """Only note the step: `complete` knows all of them, and starts each when its inputs are there."""

    def complete(self) -> None:
        """Carry out all steps, side by side where their inputs and `runtime.slots` allow it. Raises the first step's error."""
        self.schedule = Schedule(self.steps.values(), self.config.runtime.slots)
        try:
            carry_out(self.schedule, self.work, self._changed)
        finally:
            self.unfinished = set(self.schedule.running)
            self.cached.sort(key=list(self.steps).index)

    def _changed(self) -> None:
        """Note which steps are at work, and write run.json when another one has begun."""
        self.unfinished = set(self.schedule.running)
        if not self.unfinished <= self.begun:
            self.begun |= self.unfinished
            self.update()


def carry_out(schedule: Schedule, work: Callable[[Step], None], changed: Callable[[], None]) -> None:
    """Call `work` for each step, in a thread with this thread's context variables.

    changed  called in this thread whenever steps have ended and others started

    Raises what `work` raised first, after the other steps have ended.
    """
    ended: Ended = queue.SimpleQueue()
    stop, why = Stop(), "stopped, since the run ends"
    at_work: dict[str, Step] = {}
    try:
        while True:
            while (step := schedule.take()) is not None:
                at_work[step.name] = step
                _start(step, work, stop, ended)
            _tell(at_work)
            changed()
            if not at_work:
                return
            step, error = ended.get()
            del at_work[step.name]
            if error is not None:
                why = f"stopped, since {step.label} failed"
                raise error
            schedule.end(step.name)
    except BaseException as first:
        stop.stop(why)
        failed = isinstance(first, Exception)
        _wait(schedule, at_work, ended, SECONDS_AFTER_FAILURE if failed else SECONDS_AFTER_SIGNAL)
        raise


def _wait(schedule: Schedule, at_work: dict[str, Step], ended: Ended, seconds: float) -> None:
    """Wait until the steps have ended that were told to stop, at most `seconds`."""
    deadline = time.monotonic() + seconds
    while at_work:
        _tell(at_work)
        try:
            step, error = ended.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return
        del at_work[step.name]
        if error is None:
            schedule.end(step.name)
        elif not isinstance(error, Stopped):
            LOGGER.error("%s failed too: %s", step.label, error)


def _tell(at_work: dict[str, Step]) -> None:
    """Name the steps in the message after a signal."""
    if at_work:
        ENDING.doing = ", ".join(step.label for step in at_work.values())


def _start(step: Step, work: Callable[[Step], None], stop: Stop, ended: Ended) -> None:
    def body() -> None:
        try:
            work(step)
        except BaseException as error:
            ended.put((step, error))
        else:
            ended.put((step, None))

    context = contextvars.copy_context()
    context.run(STOP.set, stop)
    # A daemon, so that a step that cannot be stopped does not keep the process from ending.
    threading.Thread(target=context.run, args=(body,), name=step.name, daemon=True).start()
