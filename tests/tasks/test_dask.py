"""Tests of sharing `sample` and `execute` among Dask workers, with real schedulers, workers, machines and an S3 server."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from s3fs import S3FileSystem

from flows.method import method
from selftrain.config import RunConfig, RuntimeConfig
from selftrain.records import Candidate, Execution, Problem, read_records, write_records
from selftrain.stage import ArtifactRef, Outcome
from selftrain.store.store import Store
from tasks.run import Run
from tests.cluster import Cluster, cluster
from tests.command import ROOT, Finished, PrefectServer, processes, selftrain, wait_until
from tests.machines import HUB, around_here, forwarded
from tests.servers import seaweed

SHARED = ("sample-ppo-1-rl", "execute-ppo-1-rl")


@pytest.fixture(scope="module")
def dask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two workers on this machine."""
    with cluster(tmp_path_factory.mktemp("dask"), workers=2) as found:
        yield found


def without(finished: Finished, store: str, files: Any) -> None:
    """Copy a finished run's store to `store`, all but the stages SHARED and what is not the store's own."""
    left_out = {finished.stages[name]["key"] for name in SHARED} | {".local", ".prefect"}
    for path in finished.store.rglob("*"):
        inside = path.relative_to(finished.store)
        if path.is_file() and not left_out & set(inside.parts):
            files.put_file(str(path), f"{store}/{inside}")


def parts(server: PrefectServer, label: str, since: str) -> list[str]:
    """The states of the task runs of the parts of a step."""
    names = {"like_": f"{label} · part "}
    runs = server.post("task_runs/filter", task_runs={"name": names, "start_time": {"after_": since}})
    return sorted(f"{run['name'].removeprefix(label)} {run['state']['type']}" for run in runs)


def test_two_machines_share_the_work_of_a_run_and_its_records_are_those_of_one(
    smoke_run: Finished, server: PrefectServer, tmp_path: Path
):
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with (
        seaweed(tmp_path / "s3") as s3,
        around_here() as machines,
        forwarded(urlsplit(s3.url).port),
        forwarded(urlsplit(server.url).port),
        cluster(tmp_path / "dask", HUB) as dask,
    ):
        files = S3FileSystem(**s3.options, skip_instance_cache=True, use_listings_cache=False)
        store = s3.store()
        without(smoke_run, store, files)
        here = replace(s3, url=s3.url.replace("127.0.0.1", HUB)).environment
        for name in "ab":  # each has copies of its own
            dask.add(name, machines, XDG_CACHE_HOME=str(tmp_path / name), **here)
        settings = [f"store={store}", f"runtime.dask={dask.address}", "execute.shard=20"]
        done = selftrain(
            *("run", "smoke", "--out", str(tmp_path / "out")),
            *(argument for setting in settings for argument in ("--set", setting)),
            PREFECT_API_URL=server.url.replace("127.0.0.1", HUB),
            XDG_CACHE_HOME=str(tmp_path / "first"),
            **here,
        )
        assert done.returncode == 0, done.stderr[-3000:] + dask.said()
        found = json.loads((tmp_path / "out" / "run.json").read_text())
        assert set(found["stages"]) - set(found["cached"]) == {*SHARED, "report"}
        for name in SHARED:
            folder = "{}/{stage}/{key}".format(store, **found["stages"][name])
            manifest = json.loads(files.cat_file(f"{folder}/manifest.json"))
            assert manifest["records_digest"] == smoke_run.manifest(name)["records_digest"]
            kept = files.find(f"{folder}/progress")  # the server keeps the empty folder
            assert not [path for path in kept if path.endswith(".parquet")], "gone with the commit"
            label = name.replace("-", " · ", 1).replace("-rl", " · rl")
            assert parts(server, label, since) == [" · part 1 of 2 COMPLETED", " · part 2 of 2 COMPLETED"]
        for name in "ab":
            assert list((tmp_path / name).rglob("candidates.parquet")), (
                f"machine {name} has read no candidates"
            )
            assert s3.secret_key not in (dask.folder / f"{name}.log").read_text()


def test_a_run_with_20_000_candidates_makes_under_200_task_runs(tmp_path: Path):
    sizes = {"sft": 10, "rl": 1000, "validation": 40, "test": 40}
    config = RunConfig(
        rounds=3,
        store=str(tmp_path),
        problems={"source": "bank", "languages": ["py"], "sizes": sizes},
        sample={"rl": 7},
    )
    run = Run(config, Store(config.store), toolchain={"py": "any"})
    method(run)
    pools = [step for step in run.steps.values() if step.ref.stage == "sample" and not step.config.greedy]
    assert len(pools) * 1000 * 7 == 21_000
    # 7 pools are sampled and executed; prepare, sft, 3 x (mine, train_reward, ppo), evaluate, report.
    assert len(run.steps) == 14 + 2 + 9 + 2
    workers = 8
    shared = sum(step.stage.shards is not None for step in run.steps.values())
    assert len(run.steps) + shared * workers == 139


# Programs that take their time, and tell when they are run

PROBLEM = Problem("p.py", "p", "py", "def f(n):\n", "assert f(1) == 2\n", "rl", "made")
COUNT = 8

FLOW = """
import sys
from prefect import flow
from selftrain.config import RunConfig
from selftrain.stage import ArtifactRef
from selftrain.store.store import Store
from tasks.stages import execute
from tasks.prefect import PrefectRun

@flow
def shared(store, address):
    config = RunConfig(
        store=store,
        problems={"source": "bank", "languages": ["py"]},
        execute={"shard": 1, "audit": "off"},  # a twin would run a program that passed again
        runtime={"backend": "process", "workers": 1, "dask": address},
    )
    run = PrefectRun(config, Store(store))
    execute(run, ArtifactRef("prepare", "made"), ArtifactRef("sample", "made"), "slow")
    run.complete()

shared(*sys.argv[1:])
"""


@pytest.fixture
def runs() -> Iterator[Path]:
    """A file that a program of the sandbox can add a line to."""
    with tempfile.NamedTemporaryFile("w") as file:
        os.fchmod(file.fileno(), 0o666)
        yield Path(file.name)


def slow_programs(folder: Path, runs: Path, seconds: float) -> str:
    """A store in `folder` with COUNT candidates; each run of one adds its number to `runs`."""
    body = f"    with open({str(runs)!r}, 'a') as file:\n        file.write('%d\\n')\n"
    body += f"    import time\n    time.sleep({seconds})\n    return n + %d\n"
    candidates = [
        Candidate(f"p.py#{at}", "p.py", at, body % (at, at % 2 + 1), (1,), -1.0, "stop")
        for at in range(COUNT)
    ]
    store = Store(str(folder / "store"))
    keep(store, "prepare", lambda path: write_records(path / "problems.parquet", [PROBLEM], Problem))
    keep(store, "sample", lambda path: write_records(path / "candidates.parquet", candidates, Candidate))
    return store.url


def keep(store: Store, stage: str, write: Callable[[Path], Any]) -> None:
    """An artifact `STAGE/made`."""

    def make(folder: Path) -> Outcome:
        write(folder)
        return Outcome("")

    store.build(ArtifactRef(stage, "made"), {}, make)


def start(store: str, dask: Cluster, log: Path) -> "subprocess.Popen[bytes]":
    """The flow above, in a process of its own."""
    with log.open("wb") as out:
        return subprocess.Popen(
            [sys.executable, "-c", FLOW, store, dask.address],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=out,
            stderr=out,
        )


def test_a_worker_that_dies_costs_nothing_that_was_finished(
    server: PrefectServer, dask: Cluster, tmp_path: Path, runs: Path
):
    store = slow_programs(tmp_path, runs, 0.5)
    flow = start(store, dask, dask.folder / "flow.log")
    try:
        kept = Path(store, "execute")
        wait_until(lambda: list(kept.glob("*/progress/*/*.parquet")), "a finished shard", dask.said)
        dask.kill("worker-0")
        dask.add("worker-2")
        assert flow.wait(300) == 0, dask.said()
    finally:
        flow.kill()
    found = next(kept.glob("*/*/executions.parquet"))
    verdicts = [str(row.verdict) for row in read_records(found, Execution)]
    assert verdicts == ["passed", "wrong_answer"] * (COUNT // 2)
    ran = runs.read_text().split()
    assert set(ran) == {str(at) for at in range(COUNT)}
    assert len(ran) <= COUNT + 1, f"only what was in work is run again: {ran}"


def test_parts_end_with_the_flow_that_wants_them(
    server: PrefectServer, dask: Cluster, tmp_path: Path, runs: Path
):
    store = slow_programs(tmp_path, runs, 100)
    flow = start(store, dask, dask.folder / "flow.log")
    try:
        wait_until(runs.read_text, "a program", dask.said)
        assert processes("tasks.part", dask.folder)
    finally:
        flow.send_signal(signal.SIGKILL)
        flow.wait()
    wait_until(
        lambda: not processes("tasks.part", dask.folder), "the end of the parts", dask.said, seconds=20
    )
    assert all(worker.poll() is None for worker in dask.workers.values()), "the workers stay"


def test_a_worker_with_another_sandbox_is_refused(tmp_path: Path):
    from selftrain.stages.execute import EXECUTE, ExecuteSlice
    from tests.contexts import judging

    write_records(tmp_path / "problems.parquet", [PROBLEM], Problem)
    write_records(
        tmp_path / "candidates.parquet", [Candidate("p.py#0", "p.py", 0, "", (1,), 0, "stop")], Candidate
    )
    settings = ExecuteSlice(execute={}, toolchain={"py": "docker: image 1"})
    context = judging(
        settings,
        {"problems": tmp_path, "candidates": tmp_path},
        tmp_path,
        RuntimeConfig(backend="process"),
        only=("executions-00000.parquet",),
    )
    with pytest.raises(
        Exception, match=r"is not that of the run: py here is 'process: .*', there 'docker: image 1'"
    ):
        EXECUTE.run(context)
