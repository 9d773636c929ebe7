"""Benchmark: how many runs and state changes per second a Prefect server takes over REST.

As many runs are active at once as there are workers. Each flow run has 25 task runs, which go through Pending, Running and
Completed. Meanwhile and afterwards the runs are listed, as the UI does. The client is Prefect's own, which retries when the
server is busy; a state change counts as failed if the server does not accept it in the end.
"""

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from prefect.client.base import PrefectHttpxAsyncClient

from tests.command import prefect_server
from tests.postgres import BINARIES, postgres

TASKS = 25
"""Task runs of a flow run."""
GOAL_SECONDS = 1.0


class Load:
    """Drives one server and keeps count."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.changes = self.failed = 0
        self.listings: list[float] = []
        self.errors: set[str] = set()

    async def post(self, path: str, **body: Any) -> Any:
        """The JSON answer, None where there is none."""
        try:
            answer = await self.client.post(path, json=body)
            answer.raise_for_status()
            return answer.json()
        except httpx.HTTPError as error:
            self.errors.add(f"{type(error).__name__} {str(error)[:60]}")
            return None

    async def change(self, kind: str, run: Any, *states: str) -> None:
        """Take a run through `states`."""
        for state in states:
            self.changes += 1
            answer = run and await self.post(f"/{kind}/{run['id']}/set_state", state={"type": state})
            self.failed += not answer or answer["status"] != "ACCEPT"

    async def flow_run(self, flow: str) -> None:
        """One flow run with its task runs."""
        run = await self.post("/flow_runs/", flow_id=flow)
        await self.change("flow_runs", run, "RUNNING")
        for number in range(TASKS):
            task = run and await self.post(
                "/task_runs/", flow_run_id=run["id"], task_key="stage", dynamic_key=str(number)
            )
            await self.change("task_runs", task, "PENDING", "RUNNING", "COMPLETED")
        await self.change("flow_runs", run, "COMPLETED")

    async def listing(self) -> None:
        """The newest 200 flow runs and task runs."""
        for kind, sort in (("flow_runs", "START_TIME_DESC"), ("task_runs", "EXPECTED_START_TIME_DESC")):
            started = time.monotonic()
            await self.post(f"/{kind}/filter", sort=sort, limit=200)
            self.listings.append(time.monotonic() - started)

    def percentile(self, share: float = 0.95) -> float:
        """Of the seconds of a listing."""
        return sorted(self.listings)[int(share * (len(self.listings) - 1))]


async def drive(url: str, flow_runs: int, workers: int) -> str:
    """Load the server at `url`; one line on how it went."""
    limits = httpx.Limits(max_connections=workers + 2)
    async with PrefectHttpxAsyncClient(
        base_url=url, timeout=60, limits=limits, enable_csrf_support=False
    ) as client:
        load = Load(client)
        flow = (await load.post("/flows/", name="load"))["id"]
        todo = iter(range(flow_runs))

        async def worker() -> None:
            for _ in todo:
                await load.flow_run(flow)

        async def lister() -> None:
            while True:
                await load.listing()
                await asyncio.sleep(1)

        started = time.monotonic()
        watching = asyncio.create_task(lister())
        await asyncio.gather(*(worker() for _ in range(workers)))
        seconds = time.monotonic() - started
        watching.cancel()
        under_load = load.percentile()
        load.listings.clear()
        for _ in range(25):
            await load.listing()
        return (
            f"{flow_runs:>5} flow runs, {flow_runs * TASKS:>6} task runs, {workers:>3} at once: {load.changes / seconds:>5.0f} state "
            f"changes a second, {load.failed} of {load.changes} failed; listing p95 {under_load:.2f} s under load, "
            f"{load.percentile():.2f} s after {'; '.join(sorted(load.errors))}"
        )


def measure(name: str, flow_runs: int, workers: int, **environment: str) -> None:
    """Print what one new server does."""
    with tempfile.TemporaryDirectory() as home, prefect_server(Path(home), **environment) as server:
        print(f"{name:<11}{asyncio.run(drive(server.url, flow_runs, workers))}", flush=True)


def main() -> None:
    """Print it for PostgreSQL and for SQLite at rising load."""
    print(f"goal on PostgreSQL: none failed, listing p95 under {GOAL_SECONDS} s")
    if BINARIES is None:
        print("PostgreSQL is not installed: apt-get install postgresql")
    else:
        with postgres() as url:
            measure("PostgreSQL", 200, 20, PREFECT_SERVER_DATABASE_CONNECTION_URL=url)
    for workers in (1, 5, 20):
        measure("SQLite", 40, workers)
