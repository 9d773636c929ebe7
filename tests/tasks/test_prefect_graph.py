"""Tests of a run's steps as task runs on a server: the graph's edges, steps that overlap, failure and resume."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.command import ROOT, PrefectServer

FLOW = """
import sys, threading, time
from pathlib import Path
from prefect import flow
from selftrain.config import RunConfig
from selftrain.errors import RunError
from selftrain.stage import Outcome, Stage
from selftrain.stop import current
from selftrain.store.store import Store
from tasks.prefect import PrefectRun

fails, at_work = sys.argv[2] == "fails", threading.Event()

def first(context):
    (context.folder / "text").write_text("a")
    return Outcome("1")

def breaks(context):
    if fails:
        assert at_work.wait(120)
        raise RunError("it is broken")
    return Outcome("1")

def waits(context):  # until the step beside it has failed
    at_work.set()
    while fails and current().reason is None:
        time.sleep(0.05)
    return Outcome("1")

def last(context):
    return Outcome("1", {"read": len(context.inputs), "earlier": list(context.manifests)})

@flow(name="graph")
def graph(folder):
    run = PrefectRun(RunConfig(name="graph", store=folder), Store(folder))
    run.write(Path(folder, "run"), finished=False)
    a = run.do(Stage("first", 1, first), "a", {}, {})
    b = run.do(Stage("sft", 1, waits), "b", {}, {"a": a})
    c = run.do(Stage("prepare", 1, breaks), "c", {}, {"a": a, "again": a})
    d = run.do(Stage("last", 1, last), "d", {}, {"b": b, "c": c, "a": a})
    try:
        run.complete()
    finally:
        run.write(Path(folder, "run"), finished=False)

graph(sys.argv[1])
"""


def run_flow(store: Path, how: str, server: PrefectServer) -> subprocess.CompletedProcess[str]:
    """Run the flow in a process of its own."""
    (store / "run").mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", FLOW, str(store), how]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def task_runs(server: PrefectServer) -> dict[str, dict[str, Any]]:
    """The task runs of the last run of the flow, by name."""
    flows = {"name": {"any_": ["graph"]}}
    [latest] = server.post("flow_runs/filter", flows=flows, sort="START_TIME_DESC", limit=1)
    found = server.post("task_runs/filter", flow_runs={"id": {"any_": [latest["id"]]}})
    return {task["name"]: task for task in found}


def test_steps_overlap_the_graph_has_each_edge_once_and_a_failed_run_goes_on(
    server: PrefectServer, tmp_path: Path
):
    failed = run_flow(tmp_path, "fails", server)
    assert "it is broken" in failed.stderr
    assert failed.returncode == 1
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert list(record["stages"]) == ["a", "b", "c"], "d did not begin"
    assert record["unfinished"] == ["c"], "b was at work when c failed, and came to its end"
    done = run_flow(tmp_path, "works", server)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["unfinished"] == []
    assert record["cached"] == ["a", "b"]
    tasks = task_runs(server)
    names = {task["id"]: name for name, task in tasks.items()}
    edges = {
        name: [names[one["id"]] for several in task["task_inputs"].values() for one in several]
        for name, task in tasks.items()
    }
    assert {name: sorted(found) for name, found in edges.items()} == {
        "a": [], "b": ["a"], "c": ["a"], "d": ["a", "b", "c"]
    }  # fmt: skip
    [manifest] = [json.loads(path.read_text()) for path in tmp_path.glob("last/*/manifest.json")]
    assert manifest["metrics"] == {"read": 3, "earlier": ["a", "b", "c"]}
