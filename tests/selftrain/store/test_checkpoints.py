"""Tests of checkpoints in a remote store: they are copied whole or not at all, and another machine resumes from them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from selftrain.errors import StoreError
from selftrain.store.checkpoints import Mirror, shared
from selftrain.store.files import Files
from selftrain.store.store import Store
from tests.command import ROOT
from tests.servers import S3Server


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(f"memory://{tmp_path.name}")


def mirror(files: Files, here: Path) -> Mirror:
    return Mirror(files, f"{files.root}/sft/key/progress", here)


def write(here: Path, name: str, mark: str = "whole") -> None:
    folder = here / name
    (folder / "engine").mkdir(parents=True)
    (folder / "engine" / "shard.pt").write_text(f"optimizer of {name}")
    (folder / "model.safetensors").write_text(f"weights of {name}")
    (folder / mark).write_text("{}")


def content(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()
    }


def update(one: Mirror) -> None:
    one.update(threading.Event())


def test_the_store_holds_what_the_folder_holds(files: Files, tmp_path: Path):
    here = tmp_path / "here"
    one = mirror(files, here)
    write(here, "checkpoint-5")
    write(here, "checkpoint-10")
    update(one)
    stored = files.listing(files.root)
    assert len(stored) == 7, "three files each, and the index"

    shutil.rmtree(here / "checkpoint-5")
    write(here, "checkpoint-15")
    update(one)
    now = files.listing(files.root)
    assert len(now) == 7
    assert len(now.keys() & stored.keys()) == 4, "what stays is not sent again"

    other = mirror(files, tmp_path / "other")
    other.fetch()
    assert content(other.here) == content(here)
    update(other)
    assert files.listing(files.root) == now, "and it goes on there"


def test_where_training_has_begun_nothing_is_fetched(files: Files, tmp_path: Path):
    write(tmp_path / "here", "step-5", "state.json")
    update(mirror(files, tmp_path / "here"))
    write(tmp_path / "other", "step-3", "state.json")
    other = mirror(files, tmp_path / "other")
    other.fetch()
    assert [path.name for path in other.here.iterdir()] == ["step-3"]


def test_what_is_not_whole_is_not_stored(files: Files, tmp_path: Path):
    write(tmp_path, ".part", "state.json")
    write(tmp_path, "checkpoint-5", "trainer_state.json")
    update(mirror(files, tmp_path))
    assert not files.listing(files.root)


def test_a_part_of_a_checkpoint_is_replaced_by_the_whole_of_it(files: Files, tmp_path: Path):
    write(tmp_path / "here", "checkpoint-5")
    update(mirror(files, tmp_path / "here"))
    write(tmp_path / "other", "checkpoint-5", "trainer_state.json")
    other = mirror(files, tmp_path / "other")
    other.fetch()
    assert content(other.here) == content(tmp_path / "here")


@pytest.mark.parametrize("damage", ["changed", "lost", "index", "outside"])
def test_of_damaged_checkpoints_none_is_taken(
    damage: str, files: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    for name in ("checkpoint-5", "checkpoint-10"):  # the best, and the newest, which refers to it
        write(tmp_path / "here", name)
    one = mirror(files, tmp_path / "here")
    update(one)
    (damaged,) = [
        name for name in files.listing(files.root) if name.endswith("checkpoint-5/model.safetensors")
    ]
    if damage == "lost":
        files.delete(f"{files.root}/{damaged}")
    elif damage == "outside":
        files.write(one.index, json.dumps({"checkpoint-5": {"../../../away": "0" * 64}}).encode())
    else:
        files.write(one.index if damage == "index" else f"{files.root}/{damaged}", b"[")
    other = mirror(files, tmp_path / "other")
    other.fetch()
    assert not list(other.here.glob("checkpoint-*"))
    assert damage == "lost" or "starts from the beginning" in caplog.text


def test_a_checkpoint_that_training_deletes_meanwhile_is_stored_whole(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    here = tmp_path / "here"
    write(here, "checkpoint-5")
    upload = files.upload

    def deleting(source: Path, path: str) -> None:
        shutil.rmtree(here / "checkpoint-5", ignore_errors=True)
        upload(source, path)

    monkeypatch.setattr(files, "upload", deleting)
    update(mirror(files, here))
    other = mirror(files, tmp_path / "other")
    other.fetch()
    assert len(content(other.here / "checkpoint-5")) == 3
    assert not list(here.iterdir())


def test_a_store_that_fails_costs_copies_and_not_training(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def failing(*_: object) -> None:
        raise StoreError("the store is away")

    monkeypatch.setattr("selftrain.store.checkpoints.POLL", 0.01)
    monkeypatch.setattr(files, "read", failing)
    monkeypatch.setattr(files, "upload", failing)
    with shared(files, files.root, tmp_path):
        write(tmp_path / "checkpoints", "checkpoint-5")
        while "retrying" not in caplog.text:
            time.sleep(0.01)
    assert "starts from the beginning" in caplog.text
    assert list((tmp_path / "checkpoints").iterdir()) == [tmp_path / "checkpoints" / "checkpoint-5"]


def test_what_the_store_did_not_take_is_sent_again(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write(tmp_path / "here", "checkpoint-5")
    one = mirror(files, tmp_path / "here")
    write_file = files.write

    def failing(*_: object) -> None:
        raise StoreError("the store is away")

    monkeypatch.setattr(files, "write", failing)
    with pytest.raises(StoreError):
        update(one)
    monkeypatch.setattr(files, "write", write_file)
    update(one)
    other = mirror(files, tmp_path / "other")
    other.fetch()
    assert content(other.here) == content(one.here)


def test_once_training_has_ended_nothing_is_written(files: Files, tmp_path: Path):
    write(tmp_path, "checkpoint-5")
    ended = threading.Event()
    ended.set()
    mirror(files, tmp_path).update(ended)
    assert not files.listing(files.root)


TRAINING = """
    import logging, sys
    from selftrain.store import checkpoints
    from selftrain.store import lease
    from selftrain.configfile import load_config
    from selftrain.store.store import Store
    from tasks.stages import prepare
    from tasks.run import Run
    from tasks.stages import sft

    class Building(Run):
        def execute(self, step, there):
            self.build(step)

    checkpoints.POLL = 0.1
    lease.BEAT, lease.EXPIRY, lease.POLL = 0.3, 3.0, 0.2  # the killed machine's
    logging.basicConfig(level="INFO", format="%(message)s")
    config = load_config("smoke", {"sft.epochs": 20, "sft.checkpoint_steps": 5, "runtime.processes": 1})
    run = Building(config, Store(sys.argv[1]))
    sft(run, prepare(run))
"""


def test_another_machine_goes_on_to_the_very_weights_of_an_undisturbed_run(s3: S3Server, tmp_path: Path):
    url = s3.store("spot")
    store = Store(url, tmp_path / "reader", s3.options)

    def machine(name: str, where: str) -> subprocess.Popen[str]:
        variables = {"XDG_CACHE_HOME": str(tmp_path / name), "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(TRAINING), where],
            env=os.environ | s3.environment | variables,
            stderr=subprocess.PIPE,
            text=True,
        )

    with machine("undisturbed", str(tmp_path / "store")) as undisturbed, machine("one", url) as one:
        while not [
            name for name in store.files.listing(store.root) if name.endswith("progress/checkpoints.json")
        ]:
            assert one.poll() is None, one.communicate()[1]
            time.sleep(0.1)
        one.send_signal(signal.SIGKILL)
        said = undisturbed.communicate()[1]
        assert undisturbed.returncode == 0, said
    with machine("two", url) as two:
        said = two.communicate()[1]
        assert two.returncode == 0, said
    assert "training resumes from the checkpoints in" in said
    digests = [
        [one["records_digest"] for one in at.manifests("sft")]
        for at in (store, Store(str(tmp_path / "store")))
    ]
    assert digests[0] == digests[1]
    assert len(digests[0]) == 1
    assert not [name for name in store.files.listing(store.root) if "/progress/" in name]
