"""Creates the automations that start runs again whose process died, on the server of PREFECT_API_URL.

python infra/automation.py [--silent SECONDS]

A worker reports a killed flow process as Crashed; if the worker died too, nobody reports anything, and the run's heartbeats stop.
Then the server is told that the run has crashed, which it refuses for a run that has ended or is being cancelled: a heartbeat that
comes late starts nothing again. A run that crashed is scheduled once more, with its id and parameters; its finished artifacts are in
the store. `flows.deployed` bounds the number of starts of a run, and CRASHES those of a run whose flow is never reached. This command
is idempotent: it updates automations that exist.
"""

import argparse
from datetime import timedelta
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

from flows.deployed import STARTS

SILENT_SECONDS = 300
"""Seconds without a heartbeat after which a run counts as dead. If the server itself is down for longer, runs that are alive are
restarted too; such a run then runs twice for a while, and the store's locks keep the two processes apart."""
AGAIN_SECONDS = 60
"""Seconds from a crash to the next start. A worker reports a crash twice, and the second report must not hit the next start. In
containers a run that is cancelled reports a crash before its worker reports that it is cancelled, which takes up to 30 s."""
CRASHES = STARTS + 1
"""Number of crashes within a day after which a run fails: more than the flow itself allows, which says more about it."""
SILENT = "Silent"
"""Name of the state of a run without heartbeats; its type is CRASHED."""


def _events(*states: str) -> set[str]:
    return {f"prefect.flow-run.{state}" for state in states}


def _trigger(posture: Posture, **settings: Any) -> EventTrigger:
    """A trigger that watches each run of a deployment of prefect.yaml, all of which have the tag, by itself."""
    return EventTrigger(
        posture=posture,
        match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
        match_related=ResourceSpecification(
            {"prefect.resource.id": "prefect.tag.selftrain", "prefect.resource.role": "tag"}
        ),
        for_each={"prefect.resource.id"},
        **settings,
    )


def automations(silent: int, again: int) -> list[AutomationCore]:
    """The automations, for `silent` seconds without a heartbeat and `again` seconds from a crash to the next start."""
    heartbeats = _events("heartbeat", "Pending")  # Pending: a worker has taken the run
    ends = _events("Completed", "Failed", "Crashed", "Cancelling", "Cancelled")
    onwards = _events("Scheduled", "AwaitingRetry", "Pending", "Running")
    schedule = {"state": StateType.SCHEDULED, "name": "AwaitingRetry"}
    return [
        AutomationCore(
            name="selftrain: a silent run goes on",
            description="A run whose heartbeats stopped has crashed. The server refuses this for a run that has ended.",
            trigger=_trigger(
                Posture.Proactive,
                after=heartbeats,
                expect=heartbeats | ends | _events("AwaitingRetry"),
                within=timedelta(seconds=silent),
            ),
            actions=[
                ChangeFlowRunState(
                    state=StateType.CRASHED, name=SILENT, message=f"no sign of life for {silent} s"
                )
            ],
        ),
        AutomationCore(
            name="selftrain: a silent run is scheduled",
            description="At once, so that nothing has happened to the run since the server found it not ended.",
            trigger=_trigger(Posture.Reactive, expect=_events(SILENT), within=timedelta(0)),
            actions=[ChangeFlowRunState(**schedule, message=f"no sign of life for {silent} s")],
        ),
        AutomationCore(
            name="selftrain: a crashed run is scheduled",
            description="A run that a worker or the run itself reported as crashed is scheduled again.",
            trigger=_trigger(
                Posture.Proactive,
                after=_events("Crashed"),
                expect=(ends - _events("Crashed")) | onwards,
                within=timedelta(seconds=again),
            ),
            actions=[ChangeFlowRunState(**schedule, message=f"crashed {again} s ago")],
        ),
        AutomationCore(
            name="selftrain: a run that always crashes fails",
            description="It crashes before its flow begins, which would count its starts.",
            trigger=_trigger(
                Posture.Reactive,
                expect=_events("Crashed", SILENT),
                threshold=CRASHES,
                within=timedelta(days=1),
            ),
            actions=[
                ChangeFlowRunState(
                    state=StateType.FAILED,
                    message=f"crashed {CRASHES} times in a day; the worker's log says how its process ended",
                )
            ],
        ),
    ]


def make_automations(
    client: SyncPrefectClient, silent: int = SILENT_SECONDS, again: int = AGAIN_SECONDS, force: bool = False
) -> None:
    """Create the automations, or update them. One that was paused on the server stays paused, unless `force`."""
    for automation in automations(silent, again):
        existing = client.read_automations_by_name(automation.name)
        if existing:
            enabled = force or existing[0].enabled
            if not enabled:
                print(f"automation `{automation.name}` is paused and stays so (FORCE=1 overwrites it)")
            client.update_automation(existing[0].id, automation.model_copy(update={"enabled": enabled}))
        else:
            client.create_automation(automation)


if __name__ == "__main__":
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--silent", type=int, default=SILENT_SECONDS, metavar="SECONDS")
    with get_client(sync_client=True) as made:
        make_automations(made, options.parse_args().silent)
