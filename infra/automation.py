"""Creates the automation that restarts runs whose process died, on the server of PREFECT_API_URL.

python infra/automation.py [--silent SECONDS]

A worker reports a killed flow process as Crashed; if the worker died too, nobody reports anything. In both cases the run's heartbeats
stop, and after a while the automation schedules the run again, with its id and parameters; its finished artifacts are in the store.
The flow bounds the number of starts (`flows.iterative_selftrain.STARTS`). This command is idempotent: it updates an automation that
exists.
"""

import argparse
from datetime import timedelta

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

from flows.iterative_selftrain import SILENT

NAME = "selftrain: a silent run goes on"
SILENT_SECONDS = 300
"""Seconds without a heartbeat after which a run counts as dead. If the server itself is down for longer, runs that are alive are
restarted too; such a run then runs twice for a while, and the store's locks keep the two processes apart."""


def automation(silent: int) -> AutomationCore:
    """The automation that restarts a run after `silent` seconds without a heartbeat.

    It does not react to the state Crashed: a worker reports that state twice, the second time seconds later, and with SQLite the
    server sometimes loses the reaction ("database is locked"). A lost heartbeat does no harm, because another one follows.
    """
    # Pending: a worker has taken the run.
    heartbeats = {"prefect.flow-run.heartbeat", "prefect.flow-run.Pending"}
    ends = {f"prefect.flow-run.{name}" for name in ("Completed", "Failed", "Cancelling", "Cancelled")}
    return AutomationCore(
        name=NAME,
        description="A run that was killed, alone or with its worker, is scheduled again.",
        trigger=EventTrigger(
            posture=Posture.Proactive,
            match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
            # All deployments of prefect.yaml have this tag.
            match_related=ResourceSpecification(
                {"prefect.resource.id": "prefect.tag.selftrain", "prefect.resource.role": "tag"}
            ),
            after=heartbeats,
            expect=heartbeats | ends,
            for_each={"prefect.resource.id"},
            threshold=1,
            within=timedelta(seconds=silent),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.SCHEDULED, name="AwaitingRetry", message=f"{SILENT} for {silent} s"
            )
        ],
    )


def make_automation(client: SyncPrefectClient, silent: int = SILENT_SECONDS) -> None:
    """Create the automation, or update it."""
    existing = client.read_automations_by_name(NAME)
    if existing:
        client.update_automation(existing[0].id, automation(silent))
    else:
        client.create_automation(automation(silent))


if __name__ == "__main__":
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--silent", type=int, default=SILENT_SECONDS, metavar="SECONDS")
    with get_client(sync_client=True) as made:
        make_automation(made, options.parse_args().silent)
