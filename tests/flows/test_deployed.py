"""Tests of the deployments with a real server, pool and worker: schedule, cancellation, webhook, UI, PostgreSQL."""

import importlib.util
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.command import ROOT, Finished, PrefectServer, prefect_server, processes
from tests.needs import need
from tests.postgres import BINARIES, postgres
from tests.webhook import SECRET, Webhook


def prefect(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`prefect ARGUMENTS` in the root, finished."""
    return subprocess.run(
        [sys.executable, "-m", "prefect", *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=900,
    )


@dataclass
class Deployed:
    """A server with the deployments, and a worker for them."""

    server: PrefectServer
    log: Path

    def deployment(self, name: str) -> dict[str, Any]:
        """The deployment called `name`, in our pool."""
        rows = self.server.post("deployments/filter", deployments={"name": {"any_": [name]}})
        (found,) = [row for row in rows if row["work_pool_name"] == "selftrain"]
        return found

    def start(self, name: str, **parameters: Any) -> str:
        """Start a run of the deployment `name`; returns its id."""
        path = f"deployments/{self.deployment(name)['id']}/create_flow_run"
        return str(self.server.post(path, parameters=parameters)["id"])

    def runs(self, **chosen: Any) -> list[dict[str, Any]]:
        """The flow runs that match the filter `chosen`."""
        return list(self.server.post("flow_runs/filter", **chosen))

    def state(self, run: str) -> str:
        """The type of a run's state."""
        return str(self.runs(flow_runs={"id": {"any_": [run]}})[0]["state_type"])

    def wait(self, true: Callable[[], Any], what: str, seconds: float = 300) -> float:
        """Wait until `true()` holds; returns the seconds that it took."""
        started = time.monotonic()
        while not true():
            waited = time.monotonic() - started
            assert waited < seconds, f"{what} did not come in {seconds} s:\n{self.log.read_text()[-3000:]}"
            time.sleep(0.1)
        return time.monotonic() - started


@pytest.fixture(scope="module")
def deployed(
    server: PrefectServer, webhook: Webhook, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployed]:
    """Run what `make deploy` and `make worker` run."""
    done = subprocess.run(
        [sys.executable, "infra/deploy.py"], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    log = tmp_path_factory.mktemp("worker") / "worker.log"
    with log.open("wb") as out:
        worker = subprocess.Popen(
            [sys.executable, "-m", "flows.worker"],
            cwd=log.parent,  # runs start where they were deployed from, not where the worker is
            env=os.environ
            | {
                "PREFECT_WORKER_QUERY_SECONDS": "2",
                "SELFTRAIN_WEBHOOK_URL": webhook.url,
                "PYTHONPATH": str(ROOT),
            },
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        yield Deployed(server, log)
    finally:
        os.killpg(worker.pid, signal.SIGTERM)
        try:
            worker.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()


@pytest.fixture(scope="module")
def store(smoke_run: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished run's store."""
    return Path(shutil.copytree(smoke_run.store, tmp_path_factory.mktemp("deployed") / "store"))


def test_a_run_of_prod_is_completed(deployed: Deployed, store: Path, tmp_path: Path):
    """The store has all stages but PPO and evaluation of the run: it starts a training child and the sandbox, and writes a report."""
    overrides = {"store": str(store), "ppo.steps": 2, "name": "night"}
    done = prefect(
        "deployment", "run", "iterative-selftrain/prod", "--watch",
        "--param", "config=smoke", "--param", "rounds=1", "--param", "champion=false", "--param", f"overrides={json.dumps(overrides)}",
        "--param", f"out={tmp_path / 'out'}", "--tag", "watched",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr + deployed.log.read_text()[-3000:]
    assert "'Completed'" in done.stdout
    assert (tmp_path / "out" / "report.html").is_file()
    (run,) = deployed.runs(flow_runs={"tags": {"all_": ["watched"]}})
    assert run["name"].startswith("night · 20")
    assert set(run["tags"]) == {"selftrain", "prod", "watched"}
    states = {task["name"]: task["state_name"] for task in deployed.server.task_runs(run["id"])}
    assert {"ppo · round 1", "report", "sft", "train_reward · round 1"} <= set(states)
    assert states["ppo · round 1"] == "Completed"
    assert states["sft"] == states["train_reward · round 1"] == "Cached"
    (shown,) = deployed.server.post("artifacts/latest/filter", artifacts={"key": {"any_": ["night-report"]}})
    assert shown["flow_run_id"] == run["id"]
    assert shown["data"].count("](data:image/svg+xml;base64,") > 10


def test_a_schedule_fires(deployed: Deployed, store: Path, tmp_path: Path):
    deployment = deployed.deployment("demo")
    parameters = {"config": "smoke", "overrides": {"store": str(store)}, "out": str(tmp_path / "out")}
    schedule = {"schedule": {"interval": 30}, "active": True, "parameters": parameters}
    request = f"deployments/{deployment['id']}/schedules"
    (made,) = deployed.server.send("POST", request, [schedule])
    try:
        ours = {"deployments": {"id": {"any_": [deployment["id"]]}}}

        def finished() -> list[dict[str, Any]]:
            states = {"state": {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED"]}}}
            return deployed.runs(**ours, flow_runs=states)

        deployed.wait(finished, "a scheduled run's end")
    finally:
        deployed.server.send("DELETE", f"{request}/{made['id']}")
    (run,) = finished()[:1]
    assert run["auto_scheduled"]
    assert run["state_type"] == "COMPLETED"
    assert json.loads((tmp_path / "out" / "report.json").read_text())["cached"][-1] == "report"


def test_cancelling_ends_every_process_within_20_seconds_and_the_webhook_is_told(
    deployed: Deployed, webhook: Webhook, tmp_path: Path
):
    overrides = {"store": str(tmp_path / "store"), "sft.epochs": 100_000, "runtime.processes": 2}
    run = deployed.start(
        "prod", config="smoke", champion=False, overrides=overrides, out=str(tmp_path / "out")
    )
    try:
        checkpoints = tmp_path / "store" / ".local" / "work" / "sft"
        deployed.wait(lambda: list(checkpoints.glob("*/progress/checkpoints/*")), "a checkpoint")
        assert len(processes("selftrain.training", tmp_path)) == 3, "torchrun and two ranks"
        second = deployed.start("prod", config="nothing-of-that-name")
        waits = {"name": {"any_": ["AwaitingConcurrencySlot"]}}
        chosen = {"id": {"any_": [second]}, "state": waits}
        deployed.wait(lambda: deployed.runs(flow_runs=chosen), "the second run of prod waiting for the first")
        cancelled = time.monotonic()
        assert prefect("flow-run", "cancel", run).returncode == 0
        deployed.wait(lambda: not processes("selftrain.training", tmp_path), "the ranks' end", 20)
        deployed.wait(lambda: deployed.state(run) == "CANCELLED", "the state")
        assert time.monotonic() - cancelled < 20
    finally:
        for pid in processes("selftrain.training", tmp_path):
            os.kill(pid, signal.SIGKILL)
    assert webhook.events(run) == ["cancelled"]
    deployed.wait(lambda: deployed.state(second) == "FAILED", "the second run's turn")
    deployed.wait(lambda: webhook.events(second), "the webhook's news of it", 60)
    assert webhook.events(second) == ["failed"]
    assert any("no config 'nothing-of-that-name'" in row["text"] for row in webhook.told)
    logs = json.dumps(deployed.server.post("logs/filter", limit=200, sort="TIMESTAMP_DESC"))
    assert SECRET not in logs + deployed.log.read_text()


# The UI


@pytest.fixture(scope="module")
def page(deployed: Deployed) -> Iterator[Any]:
    """The UI in a headless Chromium; `go(path)` opens one of its pages."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    need(chromium is not None, "no chromium on PATH")
    need(importlib.util.find_spec("playwright") is not None, "playwright is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 1400, "height": 1000})
        opened.set_default_timeout(60_000)
        yield opened
        browser.close()


def walk(page: Any, deployed: Deployed, path: str, *texts: str) -> None:
    """Open a page of the UI and wait until it shows each of `texts`."""
    page.goto(deployed.server.url.removesuffix("/api") + path)
    for text in texts:
        page.get_by_text(text).first.wait_for()
    if shots := os.environ.get("SELFTRAIN_SCREENSHOTS"):
        page.wait_for_timeout(1500)
        page.screenshot(path=Path(shots, f"{path.strip('/').split('?')[0].replace('/', '-')}.png"))


def test_the_ui_shows_the_form_with_what_each_parameter_means(page: Any, deployed: Deployed):
    found = deployed.deployment("prod")
    parameters = found["parameter_openapi_schema"]["properties"]
    assert all(parameter["description"] for parameter in parameters.values())
    walk(page, deployed, "/deployments", "prod", "evaluate", "demo")
    walk(page, deployed, f"/deployments/deployment/{found['id']}", "nightly", "02:00:00 AM")
    shown = [parameter["description"] for parameter in parameters.values()]
    walk(page, deployed, f"/deployments/deployment/{found['id']}/run", *shown)


def test_the_ui_shows_a_run_its_logs_and_its_artifacts(page: Any, deployed: Deployed, smoke_run: Finished):
    ours = {"flow_runs": {"name": {"like_": "smoke"}, "state": {"type": {"any_": ["COMPLETED"]}}}}
    run = deployed.runs(**ours, sort="START_TIME_ASC")[0]
    walk(page, deployed, f"/runs/flow-run/{run['id']}", run["name"], "prepare: building prepare/")
    page.locator(".flow-run-graphs canvas, canvas").first.wait_for()
    shown = deployed.server.post("artifacts/filter", flow_runs={"id": {"any_": [run["id"]]}})
    artifacts = {row["key"]: row["id"] for row in shown}
    walk(
        page,
        deployed,
        f"/artifacts/artifact/{artifacts['smoke-ppo-2']}",
        "ppo · round 2",
        "explained_variance",
    )
    walk(page, deployed, f"/artifacts/artifact/{artifacts['smoke-report']}", "Pairs mined by round and kind")
    widths = page.locator("img[src^='data:image/svg']").evaluate_all(
        "all => all.map(each => each.naturalWidth)"
    )
    assert len(widths) > 10
    assert min(widths) > 300, "each is drawn"


def test_a_worker_runs_a_flow_with_the_server_on_postgresql_and_a_typo_is_one_line(tmp_path: Path):
    """Deploy, a worker and a run to its end, with a team's database. The run has a wrong config, since that ends soonest."""
    need(BINARIES is not None, "PostgreSQL is not installed")
    with (
        postgres() as database,
        prefect_server(tmp_path, PREFECT_SERVER_DATABASE_CONNECTION_URL=database) as server,
    ):
        environment = {"PREFECT_API_URL": server.url, "PYTHONPATH": str(ROOT)}
        made = subprocess.run(
            [sys.executable, "infra/deploy.py"],
            cwd=ROOT,
            env=os.environ | environment,
            capture_output=True,
            text=True,
        )
        assert made.returncode == 0, made.stdout + made.stderr
        deployment = server.send("GET", "deployments/name/iterative-selftrain/prod")
        start = f"deployments/{deployment['id']}/create_flow_run"
        with pytest.raises(urllib.error.HTTPError) as refused:
            server.post(start, parameters={"config": "smoke", "overides": {"sft.epochs": 1}})
        assert refused.value.code == 409
        assert b"'overides' was unexpected" in refused.value.read()
        run = server.post(start, parameters={"config": "smoke", "overrides": {"sft.epoch": 1}})["id"]
        worked = subprocess.run(
            [sys.executable, "-m", "flows.worker", "--run-once"],
            cwd=ROOT,
            env=os.environ | environment | {"SELFTRAIN_LOGS": "json"},
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert worked.returncode == 0, worked.stderr
        lines = [json.loads(line) for line in worked.stderr.splitlines()]
        state = server.send("GET", f"flow_runs/{run}")["state"]
        logs = server.post("logs/filter", logs={"flow_run_id": {"any_": [run]}})
        assert state["type"] == "FAILED"
        assert "smoke.yaml: sft.epoch: no such setting; did you mean sft.epochs?" in state["message"]
        assert "\n" not in state["message"]
        assert [log["message"] for log in logs if log["level"] >= logging.WARNING] == [state["message"]]
        assert state["message"] in [line["message"] for line in lines if line.get("flow_run_id") == run]
        assert "Traceback" not in worked.stdout + worked.stderr + json.dumps(logs)
