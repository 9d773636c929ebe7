"""Makes the automation by which a run that lost its process is started again, on the server that PREFECT_API_URL names.

python infra/automation.py [--silent SECONDS]

A worker reports a killed flow process as Crashed; where the worker died too, nobody reports anything. Either way the run's
signs of life are missing, and after a while it is scheduled again, under its own id and with its own parameters; what it has
finished is in the store. How often is for the flow to say (`flows.iterative_selftrain.STARTS`). Again is no mistake: the
automation gets what this file says now.
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
"""After this long without a sign of life a run is dead. A server that is away for longer takes living runs for dead ones:
these then run twice for a while, and the store keeps the two apart."""


def automation(silent: int) -> AutomationCore:
    """The automation; `silent`: seconds without a sign of life.

    It does not react to the state Crashed: a worker reports that twice, the second time seconds later, and SQLite loses a
    reaction now and then ("database is locked"); a sign of life that is lost is followed by another.
    """
    signs = {"prefect.flow-run.heartbeat", "prefect.flow-run.Pending"}  # Pending: a worker has taken it
    ends = {f"prefect.flow-run.{name}" for name in ("Completed", "Failed", "Cancelling", "Cancelled")}
    return AutomationCore(
        name=NAME,
        description="A run that was killed, alone or with its worker, is scheduled again.",
        trigger=EventTrigger(
            posture=Posture.Proactive,
            match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
            # The tag that all deployments of prefect.yaml have.
            match_related=ResourceSpecification(
                {"prefect.resource.id": "prefect.tag.selftrain", "prefect.resource.role": "tag"}
            ),
            after=signs,
            expect=signs | ends,
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
    """Create the automation, or bring it up to date."""
    there = client.read_automations_by_name(NAME)
    if there:
        client.update_automation(there[0].id, automation(silent))
    else:
        client.create_automation(automation(silent))


if __name__ == "__main__":
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--silent", type=int, default=SILENT_SECONDS, metavar="SECONDS")
    with get_client(sync_client=True) as made:
        make_automation(made, options.parse_args().silent)
