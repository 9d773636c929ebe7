"""Tests of the automations and events, with a real server: states and heartbeats come in every order, also late.

The server is on PostgreSQL: on SQLite it may wait for its own lock for 60 s after such a number of events, and loses events by it.
"""

import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from prefect import flow, tags
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import State

from tasks.events import emit
from tests.command import ROOT, PrefectServer, prefect_server, wait_until
from tests.needs import need
from tests.postgres import BINARIES, postgres
from tests.webhook import Webhook

sys.path.insert(0, str(ROOT / "infra"))
from automation import BLOCK, CRASHES, NIGHTLY, SILENT, automations, make_automations

SHORT = 10
"""Seconds: the shortest that Prefect allows for what does not happen."""
STEP = 0.5
"""Seconds between two states of a run. The server handles an event that arrives together with the one it follows 15 minutes later."""


class Runs:
    """Flow runs of a deployment that no worker takes; this test says what becomes of them."""

    def __init__(self, server: PrefectServer, client: SyncPrefectClient) -> None:
        self.server, self.client = server, client
        self.began = datetime.now(UTC).isoformat()
        flow = client.create_flow_from_name("starts-again")
        self.deployment = client.create_deployment(flow, "nobody", tags=["selftrain"])
        self.made: dict[str, uuid.UUID] = {}

    def make(self, *names: str) -> None:
        """Make a run of each name."""
        for name in names:
            self.made[name] = self.client.create_flow_run_from_deployment(self.deployment).id
        time.sleep(STEP)

    def become(self, names: Iterable[str], *states: StateType) -> None:
        """Propose each of `states` for each run, as workers and runs do: the server may refuse."""
        for state in states:
            for name in names:
                self.client.set_flow_run_state(self.made[name], State(type=state))
            time.sleep(STEP)

    def in_time(self, play: Callable[[], None]) -> None:
        """Make `play` make its runs and end them, anew where the machine stalled so long that the server rightly found them silent."""
        for _ in range(5):
            began = time.monotonic()
            play()
            if time.monotonic() - began < SHORT - 1:
                return
        pytest.fail(f"what takes 3 s on an idle machine took more than {SHORT - 1} s five times")

    def beat(self, *names: str, ago: float = 0) -> None:
        """Send a heartbeat of each run, as of `ago` seconds ago."""
        self.server.beat(*(self.made[name] for name in names), ago=ago)

    def states(self, name: str) -> list[str]:
        """The names of the states that the run has had."""
        return self.server.states(self.made[name])

    def events(self, prefix: str) -> list[dict[str, Any]]:
        """The events whose name begins so."""
        chosen = {"event": {"prefix": [prefix]}, "occurred": {"since": self.began}}
        return list(self.server.post("events/filter", filter=chosen, limit=50)["events"])

    def wait(self, *names: str) -> None:
        """Wait until each of these runs has been started again."""
        wait_until(
            lambda: all("AwaitingRetry" in self.states(name) for name in names),
            f"another start of {names}",
            lambda: {name: self.states(name) for name in names},
            seconds=240,
        )


ORDERS = ("after a heartbeat", "before its heartbeats", "long before a heartbeat")
ENDS = {
    "Failed": StateType.FAILED,
    "Completed": StateType.COMPLETED,
    "Cancelled": StateType.CANCELLED,
    "Cancelling": StateType.CANCELLING,
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, webhook: Webhook) -> Iterator[Runs]:
    """All runs, when everything that the automations do with them is done."""
    need(BINARIES is not None, "PostgreSQL is not installed")
    home = tmp_path_factory.mktemp("prefect")
    with (
        postgres() as database,
        prefect_server(home, PREFECT_SERVER_DATABASE_CONNECTION_URL=database) as server,
        SyncPrefectClient(server.url) as client,
    ):
        block = CustomWebhookNotificationBlock(
            name="ours", url=webhook.url, json_data={"event": "alert", "text": "{{subject}}: {{body}}"}
        )
        with temporary_settings({PREFECT_API_URL: server.url}):
            block.save(BLOCK, _sync=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(NIGHTLY, str(SHORT / 3600))
            make_automations(client, silent=SHORT, again=SHORT, cancelling=SHORT)
        yield played(Runs(server, client), webhook)


NO_NIGHTLY = "selftrain: no successful nightly: No run of the deployment prod completed"


def play_end(runs: Runs, end: str, state: StateType) -> None:
    """Runs that end in `state`, with heartbeats at all times."""
    ended = [f"{end} {order}" for order in ORDERS]
    runs.make(*ended)
    runs.become(ended, StateType.PENDING, StateType.RUNNING)
    runs.beat(ended[0])
    runs.become(ended, state)
    runs.beat(ended[1], ago=0.2)
    runs.beat(ended[1])


def play_death(runs: Runs) -> None:
    """Runs whose process ends: nobody says so of two, the worker says it twice of the third."""
    runs.make("silent before it runs", "silent while it runs", "crashed")
    runs.become(["silent before it runs", "silent while it runs", "crashed"], StateType.PENDING)
    runs.become(["silent while it runs", "crashed"], StateType.RUNNING)
    runs.beat("silent while it runs")
    runs.become(["crashed"], StateType.CRASHED, StateType.CRASHED)


def played(runs: Runs, webhook: Webhook) -> Runs:
    """Let everything happen, at once where it can."""
    runs.make("the first")
    runs.become(["the first"], StateType.PENDING, StateType.RUNNING, StateType.FAILED)
    wait_until(
        lambda: webhook.events(NO_NIGHTLY), "the alert where no run has ever completed", lambda: webhook.told
    )
    webhook.told.clear()
    runs.make("always crashes")
    for _ in range(CRASHES):
        # Not pending: on a busy machine it would be silent for too long before its crash is reported here.
        runs.become(["always crashes"], StateType.SCHEDULED, StateType.CRASHED)
    for end, state in ENDS.items():
        runs.in_time(partial(play_end, runs, end, state))
    runs.in_time(partial(play_death, runs))
    runs.wait("silent while it runs", "silent before it runs", "crashed")
    runs.make("silent at last")
    runs.become(["silent at last"], StateType.PENDING, StateType.RUNNING)
    runs.beat(*[f"{end} {ORDERS[2]}" for end in ENDS], "silent at last", "always crashes")
    runs.wait("silent at last")  # then the others' heartbeats are as old
    stuck = [f"Cancelling {order}" for order in ORDERS]
    wait_until(
        lambda: all(runs.states(name)[-1] == "Cancelled" for name in stuck), "the end of those that are stuck"
    )
    return runs


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("end", ENDS)
def test_a_run_that_has_ended_is_not_started_again(runs: Runs, end: str, order: str):
    stuck = ["Cancelled"] if end == "Cancelling" else []
    assert runs.states(f"{end} {order}") == ["Scheduled", "Pending", "Running", end, *stuck]


@pytest.mark.parametrize(
    "text",
    [
        NO_NIGHTLY,
        "selftrain: a run stuck in Cancelling is Cancelled: It was Cancelling for 10 s",
    ],
)
def test_what_needs_a_person_is_told_by_the_notification_block(runs: Runs, webhook: Webhook, text: str):
    wait_until(lambda: webhook.events(text), "the notification", lambda: webhook.told, seconds=120)


@pytest.mark.parametrize(
    ("name", "states"),
    [
        ("silent while it runs", ["Scheduled", "Pending", "Running", "Silent", "AwaitingRetry"]),
        ("silent before it runs", ["Scheduled", "Pending", "Silent", "AwaitingRetry"]),
        ("crashed", ["Scheduled", "Pending", "Running", "Crashed", "AwaitingRetry"]),
    ],
)
def test_a_run_whose_process_is_gone_is_started_again_once(runs: Runs, name: str, states: list[str]):
    assert runs.states(name) == states


@pytest.mark.parametrize("automation", automations(SHORT, SHORT), ids=lambda automation: automation.name)
def test_an_automation_does_not_wait_for_what_the_automations_cause(automation: AutomationCore):
    """Such an event fires a proactive trigger again, if it comes before the server has committed the firing."""
    assert isinstance(automation.trigger, EventTrigger)
    if automation.trigger.posture == Posture.Proactive:
        assert not automation.trigger.expect & {
            f"prefect.flow-run.{name}" for name in ("AwaitingRetry", SILENT)
        }


def test_an_event_names_its_config_its_run_and_the_runs_tags(runs: Runs):
    @flow
    def deciding() -> str:
        emit("not-promoted", "smoke", number=2)
        return str(flow_run.id)

    emit("outside-a-run", "smoke")
    with temporary_settings({PREFECT_API_URL: runs.server.url}), tags("selftrain"):
        run = deciding()
    wait_until(lambda: runs.events("selftrain."), "the event")
    (event,) = runs.events("selftrain.")
    assert event["event"] == "selftrain.not-promoted"
    assert event["resource"]["prefect.resource.id"] == "selftrain.config.smoke"
    assert event["payload"] == {"number": 2}
    related = {each["prefect.resource.id"] for each in event["related"]}
    assert {f"prefect.flow-run.{run}", "prefect.tag.selftrain"} <= related


def test_a_run_that_crashes_whenever_it_starts_fails_and_stays_so(runs: Runs):
    states: list[Any] = runs.states("always crashes")
    assert states.count("Crashed") == CRASHES
    assert states[-1] == "Failed"
