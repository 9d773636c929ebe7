"""Tests of deployed runs whose Prefect server goes away: for a while, with a restart, and for good. The runs do nothing but wait."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.states import Cancelled, Running

from tests.command import ROOT, PrefectServer
from tests.world import FLOW, World, made

WAITS = """
import pathlib
import subprocess
import sys
from prefect import flow, get_run_logger
from flows.deployed import begin
from tasks import slots
from tasks.notify import FLOW

slots.RENEW_SECONDS = 3.0

@flow(name="waits", **FLOW)
def waits(begun: str):
    begin(waits)
    with slots.Slots(("gpu",), "waits", get_run_logger()):
        child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()", "a child"], stdin=subprocess.PIPE)
        pathlib.Path(begun).touch()
        child.wait()
"""
CHILD = "a child"
WATCHES = """
import sys
import uuid
from flows import deployed
deployed.ASK_SECONDS, deployed.CANCEL_SECONDS = 0.2, 1.0
deployed._watch(None, uuid.UUID(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """A server and the deployment `waits/one`, which has a limit of one."""
    with (
        tempfile.TemporaryDirectory(prefix="outage-") as folder,
        made(Path(folder), "process", "local") as world,
    ):
        (world.folder / "waits.py").write_text(WAITS)
        # The worker asks often, and gives up soon: nothing here needs it after that.
        often = {"PREFECT_WORKER_QUERY_SECONDS": "2", "PREFECT_RUNNER_POLL_FREQUENCY": "2"}
        world.environment |= often | {"PREFECT_CLIENT_MAX_RETRIES": "0"}
        try:
            world.server.start()
            world.wait(world.answers, "the server")
            world.worker.start()
            pool = {"work_pools": {"name": {"any_": ["selftrain"]}}}
            world.wait(lambda: world.api.post("work_pools/filter", **pool), "the worker's pool")
            with SyncPrefectClient(world.api.url) as client:
                client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name="gpu", limit=1))
                client.create_deployment(
                    client.create_flow_from_name("waits"),
                    "one",
                    entrypoint="waits.waits",
                    work_pool_name="selftrain",
                    concurrency_limit=1,
                    tags=["selftrain"],
                    job_variables={"working_dir": str(ROOT), "env": {"PREFECT_CLIENT_MAX_RETRIES": "7"}},
                )
            yield world
        finally:
            world.worker.kill()
            for pid in world.processes():
                os.kill(pid, signal.SIGKILL)
            world.server.kill()


def begin(world: World, name: str) -> None:
    """Start a run, and wait until it has begun."""
    begun = world.folder / name
    world.start_run("waits/one", begun=str(begun))
    world.wait(begun.exists, "the run's begin", 300)


def test_a_run_whose_server_is_gone_for_good_ends_on_sigterm(world: World):
    begin(world, "gone")
    (flow,) = world.processes(*FLOW)
    world.server.kill()
    os.kill(flow, signal.SIGTERM)
    try:
        world.wait(lambda: not world.processes(*FLOW), "the end of the flow's process", 45)
        world.wait(lambda: not world.processes(CHILD), "the end of its child", 30)
    finally:
        world.worker.kill()
        for pid in world.processes():
            os.kill(pid, signal.SIGKILL)
        world.server.start()
        world.wait(world.answers, "the server")
        crashed = {"type": "CRASHED", "name": "Crashed"}
        world.api.post(f"flow_runs/{world.run}/set_state", state=crashed)
        world.worker.start()


def test_after_an_outage_a_run_goes_on_with_its_slot_and_can_be_cancelled(world: World):
    begin(world, "outage")
    before = len(world.worker.log.read_text())
    world.server.kill()
    # From here on the worker does not ask any more whether a run is cancelled, however long the outage is.
    given_up = "Cancellation polling task failed"
    world.wait(lambda: given_up in world.worker.log.read_text()[before:], "the worker's giving up", 240)
    world.server.start()
    world.wait(world.answers, "the server")
    world.outlast_renewals(leases=2)  # of the deployment's slot and of the GPU's
    assert world.state() == "Running"
    cancelling = {"type": "CANCELLING", "name": "Cancelling"}
    world.api.post(f"flow_runs/{world.run}/set_state", state=cancelling)
    world.wait(lambda: not world.processes(*FLOW), "the end of the flow's process", 150)
    world.wait(lambda: not world.processes(CHILD), "the end of its child", 30)
    world.wait(lambda: world.state() == "Cancelled", "the state", 60)


def test_a_run_ends_that_was_cancelled_without_its_knowledge(server: PrefectServer):
    """As where the server's answer to its own proposal was lost."""
    with SyncPrefectClient(server.url) as client:
        made = client.create_deployment(client.create_flow_from_name("cancelled-elsewhere"), "nobody")
        run = client.create_flow_run_from_deployment(made).id
        for state in (Running(), Cancelled()):
            client.set_flow_run_state(run, state, force=True)
    environment = os.environ | {"PREFECT_API_URL": server.url, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", WATCHES, str(run)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=90)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert "it was cancelled" in done.stderr
