"""What a deployment's run does besides its work: it starts a limited number of times, sees that it is cancelled, and ends in time."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

from sandbox.errors import SandboxError
from selftrain.errors import RunError, SelftrainError
from selftrain.launch.ending import ENDING

STARTS = 10
"""Largest number of starts of one flow run; the automations of infra/automation.py start a run again that crashed."""
SECONDS_TO_END = 25.0
"""Longest time from SIGTERM to the exit of the process. Kubernetes and Docker send SIGKILL some seconds later."""
ASK_SECONDS = 10.0
"""Seconds between two questions for the run's own state."""
CANCEL_SECONDS = 30.0
"""Seconds in which the worker is expected to end a run that is being cancelled."""


def attempt(flow: Any, work: Callable[[], Any]) -> Any:
    """Called by each flow: do its `work`; returns what the flow returns.

    An error of this project says in its message all that its reader can use, so it ends the run as Failed with that message, and
    the log has the message once. Prefect would log the stack trace twice, of an error that the flow raises.
    """
    from prefect.states import Failed

    logging.getLogger("prefect.flow_runs").addFilter(_without_trace)
    try:
        begin(flow)
        return work()
    except (SelftrainError, SandboxError) as error:
        return Failed(message=str(error), data=error)


def _without_trace(record: logging.LogRecord) -> bool:
    """Filter: Prefect raises what the data of a Failed state are, and logs that, stack trace and all."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, SelftrainError | SandboxError):
        record.msg, record.args, record.exc_info = str(error), None, None
    return True


def begin(flow: Any) -> None:
    """Called first in each run. Raises RunError if it has started more often than STARTS.

    SIGTERM makes Prefect report the run and send its last logs and events, for which it waits as long as the server is gone: the
    process exits without that after SECONDS_TO_END. And a worker that could not reach the server for some seconds never hears
    again that a run is cancelled, so the run itself asks.
    """
    from prefect.runtime import deployment, flow_run

    if flow_run.run_count > STARTS:
        raise RunError(
            f"the run crashed {STARTS} times and is not started again; the worker's log says how its process ended. Finished "
            "artifacts are kept: start a new run to resume"
        )
    if deployment.id is None:
        return
    ENDING.limit(SECONDS_TO_END)
    threading.Thread(target=_watch, args=(flow, UUID(flow_run.id)), daemon=True).start()


def _watch(flow: Any, id: UUID) -> None:
    """Thread: end this process when its run has been Cancelling or Cancelled for CANCEL_SECONDS.

    A run is Cancelled while it works where someone else set that state, or where the server's answer to this thread was lost.
    """
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings
    from prefect.states import Cancelled

    from tasks.notify import notify_of_end

    since = None
    # A question that fails is asked again soon; the retries of the client would wait for minutes.
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}), get_client(sync_client=True) as client:
        while True:
            time.sleep(ASK_SECONDS)
            # Whatever goes wrong between here and a server in trouble: the next question may be answered.
            with contextlib.suppress(Exception):
                run = client.read_flow_run(id)
                if run.state is None or not (run.state.is_cancelling() or run.state.is_cancelled()):
                    since = None
                    continue
                since = since or time.monotonic()
                if time.monotonic() - since < CANCEL_SECONDS:
                    continue
                if run.state.is_cancelling():
                    state = Cancelled(message="the run ended itself: its worker did not")
                    client.set_flow_run_state(id, state)
                    notify_of_end(flow, run, state)
                # Without Prefect's own end: after a signal it would report the run as crashed, whatever its state.
                ENDING.leave("it was cancelled")
