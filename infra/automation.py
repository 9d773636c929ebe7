"""Creates automations on the server of PREFECT_API_URL: runs whose process died start again, and what needs a person is told.

python infra/automation.py [--silent SECONDS]

A worker reports a killed flow process as Crashed; if the worker died too, nobody reports anything, and the run's heartbeats stop.
Then the server is told that the run has crashed, which it refuses for a run that has ended or is being cancelled: a heartbeat that
comes late starts nothing again. A run that crashed is scheduled once more, with its id and parameters; its finished artifacts are in
the store. `flows.deployed` bounds the number of starts of a run, and CRASHES those of a run whose flow is never reached. This command
is idempotent: it updates automations that exist.

A person is told by the notification block `selftrain-alerts`, of any type (Slack, mail, a webhook), if the server has it when this
command runs.
Without it the firing is an event in the UI's feed, `prefect.automation.triggered`. The server gets no other secret.
"""

import argparse
import os
import sys
from datetime import timedelta
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ActionTypes, ChangeFlowRunState, DoNothing, SendNotification
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
NIGHTLY, NIGHTLY_HOURS = "SELFTRAIN_NIGHTLY_HOURS", "26"
"""Environment variable, and its default: hours in which a run of the deployment `prod`, which has the tag `prod`, has to complete."""
CANCELLING_SECONDS = 600
"""Seconds after which a run that is being cancelled is stuck: its worker and its process, which both end it within a minute, are gone."""
BLOCK = "selftrain-alerts"
"""Name of the notification block."""


def _events(*states: str) -> set[str]:
    return {f"prefect.flow-run.{state}" for state in states}


def _automation(
    name: str,
    description: str,
    actions: list[ActionTypes],
    posture: Posture,
    tag: str = "selftrain",
    each: bool = True,
    **trigger: Any,
) -> AutomationCore:
    """An automation for the runs with a tag, which all deployments of prefect.yaml give; `each`: it watches each run by itself."""
    watched = EventTrigger(
        posture=posture,
        match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
        match_related=ResourceSpecification(
            {"prefect.resource.id": f"prefect.tag.{tag}", "prefect.resource.role": "tag"}
        ),
        for_each={"prefect.resource.id"} if each else set(),
        **trigger,
    )
    return AutomationCore(
        name=f"selftrain: {name}", description=description, trigger=watched, actions=actions
    )


def automations(silent: int, again: int) -> list[AutomationCore]:
    """The automations, for `silent` seconds without a heartbeat and `again` seconds from a crash to the next start."""
    heartbeats = _events("heartbeat", "Pending")  # Pending: a worker has taken the run
    ends = _events("Completed", "Failed", "Crashed", "Cancelling", "Cancelled")
    # Not AwaitingRetry, which these actions cause: where many runs crash at once, it would be evaluated before the server has
    # committed that the trigger has fired, and fire it again.
    onwards = _events("Scheduled", "Pending", "Running")
    schedule = {"state": StateType.SCHEDULED, "name": "AwaitingRetry"}
    silence = f"no sign of life for {silent} s"
    always = f"crashed {CRASHES} times in a day; the worker's log says how its process ended"
    return [
        _automation(
            "a silent run goes on",
            "A run whose heartbeats stopped has crashed. The server refuses this for a run that has ended.",
            [ChangeFlowRunState(state=StateType.CRASHED, name=SILENT, message=silence)],
            Posture.Proactive,
            after=heartbeats,
            expect=heartbeats | ends,
            within=timedelta(seconds=silent),
        ),
        _automation(
            "a silent run is scheduled",
            "At once, so that nothing has happened to the run since the server found it not ended.",
            [ChangeFlowRunState(**schedule, message=silence)],
            Posture.Reactive,
            expect=_events(SILENT),
            within=timedelta(0),
        ),
        _automation(
            "a crashed run is scheduled",
            "A run that a worker or the run itself reported as crashed is scheduled again.",
            [ChangeFlowRunState(**schedule, message=f"crashed {again} s ago")],
            Posture.Proactive,
            after=_events("Crashed"),
            expect=(ends - _events("Crashed")) | onwards,
            within=timedelta(seconds=again),
        ),
        _automation(
            "a run that always crashes fails",
            "It crashes before its flow begins, which would count its starts.",
            [ChangeFlowRunState(state=StateType.FAILED, message=always)],
            Posture.Reactive,
            expect=_events("Crashed", SILENT),
            threshold=CRASHES,
            within=timedelta(days=1),
        ),
    ]


def alerts(nightly: timedelta, cancelling: int, told: list[ActionTypes]) -> list[AutomationCore]:
    """The automations for what needs a person, whom the actions `told` tell."""
    stuck = f"stuck in Cancelling for {cancelling} s: neither its worker nor its process ended it"
    return [
        _automation(
            "no successful nightly",
            f"No run of the deployment prod completed in {nightly / timedelta(hours=1):g} hours.",
            told or [DoNothing()],
            Posture.Proactive,
            tag="prod",
            each=False,
            # The time counts from the last success, or from the first run where none has succeeded: these events begin
            # to count only where nothing does yet.
            after=_events("Completed", "Pending", "Late"),
            expect=_events("Completed"),
            within=nightly,
        ),
        _automation(
            "a run stuck in Cancelling is Cancelled",
            f"It was Cancelling for {cancelling} s. It would hold its slot, and the next runs would wait for it.",
            [ChangeFlowRunState(state=StateType.CANCELLED, message=stuck), *told],
            Posture.Proactive,
            after=_events("Cancelling"),
            expect=_events("Completed", "Failed", "Crashed", "Cancelled"),
            within=timedelta(seconds=cancelling),
        ),
    ]


def _told(client: SyncPrefectClient) -> list[ActionTypes]:
    """The action that tells a person, if the server has the block for it."""
    blocks = client.read_block_documents(include_secrets=False)
    return [
        SendNotification(
            block_document_id=block.id, subject="{{ automation.name }}", body="{{ automation.description }}"
        )
        for block in blocks
        if block.name == BLOCK and block.block_schema and "notify" in block.block_schema.capabilities
    ]


def _nightly() -> timedelta:
    """The time of NIGHTLY. Exits with a message if it is none."""
    hours = os.environ.get(NIGHTLY) or NIGHTLY_HOURS
    try:
        return timedelta(hours=float(hours))
    except (ValueError, OverflowError):
        sys.exit(f"{NIGHTLY}={hours}: expected a number of hours")


def make_automations(
    client: SyncPrefectClient,
    silent: int = SILENT_SECONDS,
    again: int = AGAIN_SECONDS,
    force: bool = False,
    cancelling: int = CANCELLING_SECONDS,
) -> None:
    """Create the automations, or update them. One that was paused on the server stays paused, unless `force`."""
    for automation in [*automations(silent, again), *alerts(_nightly(), cancelling, _told(client))]:
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
    options.add_argument(
        "--silent",
        type=int,
        default=SILENT_SECONDS,
        metavar="SECONDS",
        help="seconds without a heartbeat after which a run counts as dead (default: %(default)s)",
    )
    with get_client(sync_client=True) as made:
        make_automations(made, options.parse_args().silent)
