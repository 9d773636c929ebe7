"""Tests of the automations that start a run again, with a real server: states and heartbeats come in every order, also late."""

import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.states import State

from tests.command import ROOT, PrefectServer, wait_until

sys.path.insert(0, str(ROOT / "infra"))
from automation import CRASHES, make_automations

SHORT = 10
"""Seconds: the shortest that Prefect allows for what does not happen."""


class Runs:
    """Flow runs of a deployment that no worker takes; this test says what becomes of them."""

    def __init__(self, server: PrefectServer, client: SyncPrefectClient) -> None:
        self.server, self.client = server, client
        flow = client.create_flow_from_name("starts-again")
        self.deployment = client.create_deployment(flow, "nobody", tags=["selftrain"])
        self.made: dict[str, uuid.UUID] = {}

    def make(self, name: str, *states: StateType) -> None:
        """Make a run called `name` that goes through `states`."""
        self.made[name] = self.client.create_flow_run_from_deployment(self.deployment).id
        for state in states:
            self.become(name, state)

    def become(self, name: str, state: StateType) -> None:
        """Propose `state`, as workers and runs do: the server may refuse."""
        self.client.set_flow_run_state(self.made[name], State(type=state))

    def beat(self, *names: str, ago: float = 0) -> None:
        """Send a heartbeat of each run, as of `ago` seconds ago."""
        heartbeats = [
            {
                "id": str(uuid.uuid4()),
                "event": "prefect.flow-run.heartbeat",
                "occurred": (datetime.now(UTC) - timedelta(seconds=ago)).isoformat(),
                "resource": {"prefect.resource.id": f"prefect.flow-run.{self.made[name]}"},
                "related": [{"prefect.resource.id": "prefect.tag.selftrain", "prefect.resource.role": "tag"}],
            }
            for name in names
        ]
        self.server.send("POST", "events", heartbeats)

    def states(self, name: str) -> list[str]:
        """The names of the states that the run has had."""
        rows = self.server.send("GET", f"flow_run_states/?flow_run_id={self.made[name]}")
        return [row["name"] for row in sorted(rows, key=lambda row: row["timestamp"])]

    def wait(self, *names: str) -> None:
        """Wait until each of these runs has been started again."""
        wait_until(
            lambda: all("AwaitingRetry" in self.states(name) for name in names),
            f"another start of {names}",
            lambda: {name: self.states(name) for name in names},
            seconds=240,
        )


BEGUN = (StateType.PENDING, StateType.RUNNING)
ENDS = {
    "Failed": StateType.FAILED,
    "Completed": StateType.COMPLETED,
    "Cancelled": StateType.CANCELLED,
    "Cancelling": StateType.CANCELLING,
}


@pytest.fixture(scope="module")
def runs(server: PrefectServer) -> Iterator[Runs]:
    """All runs, when everything that the automations do with them is done."""
    with SyncPrefectClient(server.url) as client:
        make_automations(client, silent=SHORT, again=SHORT)
        try:
            yield played(Runs(server, client))
        finally:
            make_automations(client)


def played(runs: Runs) -> Runs:
    """Let everything happen, at once where it can."""
    for name, end in ENDS.items():
        runs.make(f"{name} after a heartbeat", *BEGUN)
        runs.beat(f"{name} after a heartbeat")
        runs.become(f"{name} after a heartbeat", end)
        runs.make(f"{name} before its heartbeats", *BEGUN, end)
        runs.beat(f"{name} before its heartbeats", ago=0.2)
        runs.beat(f"{name} before its heartbeats")
        runs.make(f"{name} long before a heartbeat", *BEGUN, end)
    runs.make("silent while it runs", *BEGUN)
    runs.beat("silent while it runs")
    runs.make("silent before it runs", StateType.PENDING)
    runs.make("crashed", *BEGUN, StateType.CRASHED, StateType.CRASHED)
    runs.make("always crashes")
    for _ in range(CRASHES):
        # Not pending: on a busy machine it would be silent for too long before its crash is reported here.
        for state in (StateType.SCHEDULED, StateType.CRASHED):
            runs.become("always crashes", state)
    runs.wait("silent while it runs", "silent before it runs", "crashed")
    late = [f"{name} long before a heartbeat" for name in ENDS]
    runs.make("silent at last", *BEGUN)
    runs.beat(*late, "silent at last", "always crashes")
    runs.wait("silent at last")  # then the others' heartbeats are as old
    return runs


@pytest.mark.parametrize("order", ["after a heartbeat", "before its heartbeats", "long before a heartbeat"])
@pytest.mark.parametrize("end", ENDS)
def test_a_run_that_has_ended_is_not_started_again(runs: Runs, end: str, order: str):
    assert runs.states(f"{end} {order}") == ["Scheduled", "Pending", "Running", end]


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


def test_a_run_that_crashes_whenever_it_starts_fails_and_stays_so(runs: Runs):
    states: list[Any] = runs.states("always crashes")
    assert states.count("Crashed") == CRASHES
    assert states[-1] == "Failed"
