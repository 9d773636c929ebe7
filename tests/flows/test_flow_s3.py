"""Tests of a run with its store on S3: a second machine finds all stages cached, and no secret is stored."""

import json
from pathlib import Path

import pytest

from selftrain.stage import ArtifactRef
from selftrain.store.store import Store
from tests.command import PrefectServer, selftrain
from tests.servers import SECRET_KEY, S3Server


def test_a_run_on_s3_is_found_cached_on_another_machine(
    server: PrefectServer, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    url = s3.store("smoke")
    store = Store(url, tmp_path / "reader", s3.options)
    for machine in ("one", "two"):
        folder = tmp_path / machine
        done = selftrain(
            "run", "smoke", "--rounds", "1", "--set", f"store={url}", "--out", str(folder / "out"),
            XDG_CACHE_HOME=str(folder / "cache"), **s3.environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-6000:]
        assert SECRET_KEY not in done.stdout + done.stderr
        run = json.loads((folder / "out" / "run.json").read_text())
        assert (len(run["cached"]) == len(run["stages"])) is (machine == "two")
        assert (folder / "out" / run["reranker"] / "config.json").is_file()
    refs = [ArtifactRef(ref["stage"], ref["key"]) for ref in run["stages"].values()]
    assert all(store.has(ref) for ref in refs)
    assert not [name for name in store.files.listing(store.root) if "/lease/" in name or "/progress/" in name]
    records = [
        json.loads(store.files.read(f"{store.root}/runs/smoke/{name}"))
        for name in store.files.children(f"{store.root}/runs/smoke")
    ]
    assert [record["stages"] for record in records] == [run["stages"]] * 2
    assert all(record["finished"] for record in records)

    states = [task["state"] for task in server.task_runs(server.last_completed()["id"])]
    assert {state["name"] for state in states} == {"Cached"}
    keys = {state["data"]["storage_key"] for state in states}
    assert {str(ref).replace("/", "-") for ref in refs} <= {key.rpartition("/")[2] for key in keys}, (
        "shared through the store"
    )

    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in kept if SECRET_KEY.encode() in path.read_bytes()]
    stored = store.files.listing(store.root)
    assert [name for name in stored if name.startswith(".prefect/")]
    assert not [name for name in stored if SECRET_KEY.encode() in store.files.read(f"{store.root}/{name}")]
    logs = server.post("logs/filter", limit=200, sort="TIMESTAMP_DESC")
    assert logs
    assert not [log for log in logs if SECRET_KEY in log["message"]]

    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    shown = selftrain("show", str(tmp_path / "two" / "out"))
    assert "not in the store" not in shown.stdout
    assert shown.returncode == 0, shown.stderr
    kept_all = selftrain("gc", url, "--keep-runs", "1", "--dry-run", XDG_CACHE_HOME=str(tmp_path / "gc"))
    assert kept_all.returncode == 0, kept_all.stderr
    assert f"kept {len(set(refs))} artifacts of 1 run" in kept_all.stdout
