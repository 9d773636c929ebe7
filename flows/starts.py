"""Bounds how often one flow run starts; the automations of infra/automation.py start a run again that crashed."""

from selftrain.errors import RunError

STARTS = 10
"""Largest number of starts of one flow run."""


def check_starts() -> None:
    """Called first in each flow. Raises RunError, which ends the run as Failed, if it has started more often than STARTS."""
    from prefect.runtime import flow_run

    if flow_run.run_count > STARTS:
        raise RunError(
            f"the run crashed {STARTS} times and is not started again; the worker's log says how its process ended. Finished "
            "artifacts are kept: start a new run to resume"
        )
