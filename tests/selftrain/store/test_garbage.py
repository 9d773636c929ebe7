"""Tests of `selftrain gc`: it keeps all artifacts that runs and the registry need, and removes the others when they are old."""

import fcntl
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.cli import main
from selftrain.errors import StoreError, UsageError
from selftrain.stage import ArtifactRef, Outcome
from selftrain.store import garbage
from selftrain.store.garbage import collect
from selftrain.store.store import Store
from tests.servers import S3Server

OLD = 30 * 86400
Say = Callable[[str], None]


def ref(stage: str, digit: str) -> ArtifactRef:
    """An artifact whose key is 32 times `digit`."""
    return ArtifactRef(stage, digit * 32)


A, B, C, D = (ref("prepare", digit) for digit in "abcd")
SFT_1, SFT_2, SFT_3, SFT_4 = (ref("sft", digit) for digit in "1234")


def make(store: Store, which: ArtifactRef, **inputs: ArtifactRef) -> None:
    """Context an artifact of 1,000 bytes and a manifest."""

    def write(folder: Path) -> Outcome:
        (folder / "data").write_bytes(bytes(1000))
        return Outcome("digest")

    record = {"inputs": {name: str(other) for name, other in inputs.items()}}
    assert store.build(which, record, write)


def run(
    store: Store, name: str, id: str, refs: dict[str, ArtifactRef], finished: float | None, updated: float = 0
) -> None:
    """Leave the record of a run, as `tasks.run.Run.record` does."""
    stages = {label: {"stage": other.stage, "key": other.key} for label, other in refs.items()}
    updated = updated or time.time()
    store.record_run(
        name, id, {"name": name, "started": 1, "updated": updated, "finished": finished, "stages": stages}
    )


def filled(store: Store) -> None:
    """A store: SFT_1 of a run long ago, SFT_2 of the newest, SFT_3 of the registry, SFT_4 of a run that is not finished."""
    for problems, model in ((A, SFT_1), (B, SFT_2), (C, SFT_3), (D, SFT_4)):
        make(store, problems)
        make(store, model, problems=problems)
    now = time.time()
    run(store, "prod", "20200101", {"sft": SFT_1}, finished=1000)
    run(store, "prod", "20250101", {"sft": SFT_2}, finished=2000)
    run(store, "demo", "20260101", {"sft": SFT_4}, finished=None, updated=now - 3600)
    run(store, "demo", "20200101", {"sft": SFT_1}, finished=None, updated=now - 8 * 86400)
    champion = json.dumps({"champion": {"reranker": str(SFT_3)}}).encode()
    store.files.write(f"{store.root}/registry/prod/000001.json", champion)


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let all that is there be `seconds` old for gc."""
    monkeypatch.setattr(garbage, "_modified", lambda info: time.time() - seconds)


def there(store: Store) -> set[ArtifactRef]:
    """The artifacts that are whole."""
    return {which for which in (A, B, C, D, SFT_1, SFT_2, SFT_3, SFT_4) if store.has(which)}


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store."""
    if request.param == "local":
        return Store(str(tmp_path / "store"))
    server: S3Server = request.getfixturevalue("s3")
    return Store(server.store(), tmp_path / "machine", server.options)


def test_what_runs_and_the_registry_need_stays_and_the_rest_goes(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    filled(store)
    lines: list[str] = []
    assert collect(store, 1, True, lines.append) == 0, "nothing is an hour old"
    later(monkeypatch, OLD)
    would = collect(store, 1, True, lines.append)
    assert there(store) == {A, B, C, D, SFT_1, SFT_2, SFT_3, SFT_4}, "a dry run removes nothing"
    told = [line.split("  ")[0] for line in lines if "artifact " in line]
    assert told == [f"would remove artifact {A}", f"would remove artifact {SFT_1}"]
    size = sum(
        info["size"]
        for name, info in store.files.listing(store.root).items()
        if A.key in name or SFT_1.key in name
    )
    assert would == size > 2000

    lines.clear()
    assert collect(store, 1, False, lines.append) == size
    assert there(store) == {B, C, D, SFT_2, SFT_3, SFT_4}
    assert not [name for name in store.files.listing(store.root) if A.key in name and ".local" not in name]
    assert sorted(name.split(".json")[0] for name in store.files.listing(f"{store.root}/runs")) == [
        "demo/20260101",
        "prod/20250101",
    ]
    assert collect(store, 1, False, lines.append) == 0


def test_superseded_and_abandoned_attempts_go_when_they_are_old(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    make(store, A)
    run(store, "prod", "1", {"prepare": A}, finished=1)
    for which, name in ((A, "0123456789ab"), (B, "ba9876543210")):  # B has no manifest
        store.files.write(f"{store.root}/{which.stage}/{which.key}/{name}/data", b"left")
    (tmp_path / "part").write_text("part")
    store.put_progress(C, "part", tmp_path / "part")
    lines: list[str] = []
    later(monkeypatch, 3000)
    assert collect(store, 1, False, lines.append) == 0, "they are younger than an hour"
    later(monkeypatch, 5000)
    assert collect(store, 1, False, lines.append) == 8
    assert store.has(A)
    assert store.get_progress(C, tmp_path / "got") == ["part"], "somebody may go on from it"
    later(monkeypatch, OLD)
    assert collect(store, 1, False, lines.append) == 4
    assert store.get_progress(C, tmp_path / "got too") == []


def test_what_is_being_built_stays(store: Store, monkeypatch: pytest.MonkeyPatch):
    make(store, A)
    make(store, B)
    run(store, "prod", "1", {"prepare": A}, finished=1)
    work = store.local / "work" / B.stage / B.key
    work.mkdir(parents=True)
    (work / "checkpoint").write_text("half")
    os.utime(work / "checkpoint", (1, 1))
    later(monkeypatch, OLD)
    lines: list[str] = []
    with (store.local / "locks" / f"{B.stage}-{B.key}").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        collect(store, 1, False, lines.append)
        assert there(store) == {A, B}
        assert (work / "checkpoint").is_file()
    if not store.is_local:  # another machine's
        lease = f"{store.root}/{B.stage}/{B.key}/lease/1.json"
        store.files.write(lease, b"{}")
        monkeypatch.setattr(
            garbage, "_modified", lambda info: time.time() - (10 if "lease" in info["name"] else OLD)
        )
        collect(store, 1, False, lines.append)
        assert there(store) == {A, B}
        later(monkeypatch, OLD)
    collect(store, 1, False, lines.append)
    assert there(store) == {A}
    assert not work.exists(), "given up long ago"


def test_the_command_says_what_it_would_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    store = Store(str(tmp_path / "store"))
    make(store, A)
    run(store, "prod", "1", {"prepare": A}, finished=1)
    assert main(["gc", str(tmp_path / "store"), "--keep-runs", "2", "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "would remove 0 B; kept 1 artifact of 1 run and the registry"
    ]


def test_what_is_no_store_is_left_alone(tmp_path: Path):
    (tmp_path / "photos" / "2024").mkdir(parents=True)
    (tmp_path / "photos" / "2024" / "holiday.json").write_text("{}")

    def fail(store: Store, kind: Any, match: str, keep: int = 1) -> None:
        with pytest.raises(kind, match=match):
            collect(store, keep, False, print)

    fail(Store(str(tmp_path)), UsageError, "is not a store")
    fail(Store(str(tmp_path / "nowhere")), UsageError, "is not a store")
    assert (tmp_path / "photos" / "2024" / "holiday.json").is_file()
    store = Store(str(tmp_path / "store"))
    make(store, A)
    fail(store, UsageError, "no run has left a record")
    run(store, "prod", "1", {"prepare": A}, finished=1)
    fail(store, UsageError, "--keep-runs", keep=0)
    store.files.write(f"{store.root}/registry/prod/000001.json", b"{torn")
    fail(store, StoreError, r"registry/prod/000001\.json is damaged")
    assert store.has(A)


REF = {"stage": "sft", "key": SFT_1.key}


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ([], "it has no name"),
        (None, "it has no name"),
        ({"note": "mine"}, "it has no name"),
        ({"name": "demo", "finished": None, "stages": {}}, "it says no time"),
        ({"name": "demo", "finished": True, "stages": {"sft": REF}}, "it says no time"),  # a run's run.json
        ({"name": "demo", "finished": "yesterday", "updated": 1, "stages": {}}, "it says no time"),
        ({"name": "demo", "finished": 1, "stages": ["sft"]}, "it has no stages"),
        (
            {"name": "demo", "finished": 1, "stages": {"sft": {**REF, "key": None}}},
            "its stage sft names no artifact",
        ),
        ({"name": "demo", "finished": 1, "stages": {"sft": "1"}}, "its stage sft names no artifact"),
    ],
)
def test_among_the_records_another_file_ends_every_command_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    record: Any,
    said: str,
):
    """What it needs is not known, so that nothing is removed."""
    store = Store(str(tmp_path / "store"))
    make(store, SFT_1)
    make(store, A)
    run(store, "prod", "1", {"prepare": A}, finished=1)
    store.files.write(f"{store.root}/runs/demo/2.json", json.dumps(record).encode())
    later(monkeypatch, OLD)
    for command in (["gc", store.url], ["gc", store.url, "--dry-run"], ["why", "rm-1", "--store", store.url]):
        assert main(command) == 1
        [line] = capsys.readouterr().err.splitlines()
        assert line == (
            f"selftrain: {store.url}/runs/demo/2.json is no record of a run ({said}): move or delete it. Nothing was removed"
        )
    assert there(store) == {A, SFT_1}
    store.files.delete(f"{store.root}/runs/demo/2.json")
    for champion in ({}, [], {"reranker": str(SFT_1)}):
        store.files.write(f"{store.root}/registry/prod/000001.json", json.dumps(champion).encode())
        with pytest.raises(StoreError, match=r"prod/000001\.json is no record of a decision"):
            collect(store, 1, False, print)
    assert there(store) == {A, SFT_1}
