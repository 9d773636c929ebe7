"""Tests of the places that a reranker or a generator is loaded from: folder, run, champion, URL, hub."""

import json
import shutil
from pathlib import Path

import fsspec
import pytest

from flows.cli import main
from selftrain.champion.registry import Contender, Record, Registry
from selftrain.errors import StoreRefused, UsageError
from selftrain.rerank.places import generator_folder, reranker_folder
from selftrain.rerank.ranker import load_ranker
from selftrain.stage import ArtifactRef, Outcome
from selftrain.store.files import Files
from selftrain.store.runfile import find_run
from selftrain.store.store import Store

KEYS = {"train_reward": "a" * 32, "sft": "b" * 32, "ppo": "c" * 32}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The store runs/store of the working folder, with three checkpoints, and runs/made, a run that made them."""
    monkeypatch.chdir(tmp_path)
    store = Store("runs/store")

    def make(folder: Path) -> Outcome:
        (folder / "config.json").write_text("{}")
        (folder / "tokenizer").mkdir()
        (folder / "tokenizer" / "words.json").write_text("[]")
        return Outcome("digest")

    for stage, key in KEYS.items():
        store.build(ArtifactRef(stage, key), {"name": stage, "label": stage, "inputs": {}}, make)
    names = {"sft": "sft", "rm-2": "train_reward", "ppo-2": "ppo"}
    record = {
        "name": "made",
        "finished": True,
        "seconds": 1.0,
        "config": {},
        "store": str(tmp_path / "runs" / "store"),
        "stages": {name: {"stage": stage, "key": KEYS[stage]} for name, stage in names.items()},
        "reranker": str(store.place(ArtifactRef("train_reward", KEYS["train_reward"])).resolve()),
    }
    (tmp_path / "runs" / "made").mkdir()
    (tmp_path / "runs" / "made" / "run.json").write_text(json.dumps(record))
    return store


def place(store: Store, stage: str) -> Path:
    """The folder of one of its checkpoints."""
    return store.place(ArtifactRef(stage, KEYS[stage])).resolve()


def test_a_runs_folder_that_was_copied_finds_its_store_or_says_which_it_needs(store: Store, tmp_path: Path):
    """`reranker` in run.json is a path from the run's folder, so that a copy elsewhere leads nowhere."""
    record = json.loads(Path("runs/made/run.json").read_text())
    copied = tmp_path / "deep" / "er" / "copied"
    copied.mkdir(parents=True)
    (copied / "run.json").write_text(json.dumps(record | {"reranker": "../store/train_reward/there"}))
    assert reranker_folder(copied).resolve() == place(store, "train_reward")
    assert generator_folder(copied).resolve() == place(store, "sft")
    (copied / "run.json").write_text(
        json.dumps(record | {"reranker": "../there", "store": "/home/else/store"})
    )
    for find in (reranker_folder, generator_folder):
        with pytest.raises(
            StoreRefused, match=r"store /home/else/store: no such folder .* `store` of the copied run.json"
        ):
            find(copied)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"stages": None}, "stages"),
        ({"stages": {"sft": None}}, "stages.sft"),
        ({"stages": {"sft": {"stage": "sft", "key": None}}}, "stages.sft"),
        ({"store": None}, "store"),
        ({"config": None}, "config"),
        ({"finished": "yes"}, "finished"),
        ({"seconds": None}, "seconds"),
        ({"reranker": 7}, "reranker"),
    ],
)
def test_a_run_json_with_other_values_is_told_by_every_command(
    store: Store, change: dict[str, object], said: str, capsys: pytest.CaptureFixture[str]
):
    path = Path("runs/made/run.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    Path("p").write_text("def f():\n")
    told = f"runs/made/run.json: {said} is not what `selftrain run` writes; run it again"
    for command in (
        ["show", "made"],
        ["compare", "made"],
        ["rank", "made", "--prompt", "p", "p"],
        ["evaluate", "made"],
    ):
        assert main(command) == 2
        assert capsys.readouterr().err == f"selftrain: {told}\n"
    assert main(["runs"]) == 0
    assert f"damaged     {told}" in capsys.readouterr().out


def test_a_run_is_named_by_its_folder_or_its_name(store: Store):
    for run in ("made", "runs/made", Path("runs/made")):
        assert reranker_folder(run).resolve() == place(store, "train_reward")
        assert generator_folder(run).resolve() == place(store, "sft")
        assert generator_folder(run, "last").resolve() == place(store, "ppo")
        assert generator_folder(run, "ppo-2").resolve() == place(store, "ppo")
    with pytest.raises(UsageError, match=r"no policy 'ppo-9' in this run; it has sft, ppo-2"):
        generator_folder("made", "ppo-9")


def test_the_champion_is_the_one_of_the_last_record(store: Store):
    with pytest.raises(UsageError, match="no champion in runs/store yet"):
        reranker_folder("champion")
    for name in ("night", "day"):
        made = Contender(
            reranker=f"train_reward/{KEYS['train_reward']}",
            rounds=2,
            ranker="rm-2",
            generator=f"sft/{KEYS['sft']}" if name == "night" else None,
        )
        record = Record(number=1, decision="promoted", reason="made", champion=made)
        assert Registry(store, name).append(record)
        if name == "night":
            assert reranker_folder("champion").resolve() == place(store, "train_reward")
    with pytest.raises(UsageError, match="day, night"):
        reranker_folder("champion")
    for named in (
        "champion:night",
        "champion:night@runs/store",
        f"champion:night@{Path('runs/store').resolve()}",
    ):
        assert reranker_folder(named).resolve() == place(store, "train_reward")
        assert generator_folder(named).resolve() == place(store, "sft")
    with pytest.raises(UsageError, match="its generator is not known"):
        generator_folder("champion:day")


def test_a_url_names_a_folder_or_an_artifact(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    there = fsspec.filesystem("memory")
    there.put(str(place(store, "train_reward")), "/bucket/reranker", recursive=True)
    there.pipe_file("/bucket/reranker/pytorch_model.bin", b"a pickle")
    found = reranker_folder("memory://bucket/reranker")
    assert sorted(path.name for path in found.iterdir()) == ["config.json"]
    downloads = []
    monkeypatch.setattr(Files, "download", lambda *given: downloads.append(given))
    assert reranker_folder("memory://bucket/reranker/") != found, "another name, another copy"
    assert downloads
    downloads.clear()
    assert reranker_folder("memory://bucket/reranker") == found
    assert not downloads, "it is in the cache"
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    there.pipe_file("/bucket/reranker/config.json", b"{ }")
    assert (reranker_folder("memory://bucket/reranker") / "config.json").read_text() == "{ }"
    url = f"file://{tmp_path}/runs/store/train_reward/{KEYS['train_reward']}"
    assert reranker_folder(url).resolve() == place(store, "train_reward")
    with pytest.raises(UsageError, match="expected the folder of a reranker"):
        reranker_folder("memory://bucket/none")


def test_what_is_no_place_is_said_and_the_hub_is_asked_only_for_what_can_be_its_name(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    for nowhere in ("nowhere", "/nowhere/at", "runs/nowhere", "runs"):
        with pytest.raises(UsageError, match=r"expected a reranker's folder .* or a hub's OWNER/NAME"):
            reranker_folder(nowhere)
    for look in (reranker_folder, generator_folder, load_ranker, find_run):
        with pytest.raises(UsageError, match=r"^x{200}: cannot be read: File name too long"):
            look("x" * 300)
    with pytest.raises(UsageError, match="cannot be read: Connection refused"):
        reranker_folder("ftp://127.0.0.1:9/there")
    asked = []

    def snapshot(name: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((name, revision, "*.bin" in allow_patterns))
        raise OSError("the hub is offline")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    for named in ("owner/model", "owner/model@v1.0"):
        with pytest.raises(UsageError, match=r"^owner/model: no folder or run here, .* the hub is offline"):
            reranker_folder(named)
    assert asked == [("owner/model", None, False), ("owner/model", "v1.0", False)]


def test_a_folder_comes_before_all_else(store: Store, tmp_path: Path):
    shutil.copytree(place(store, "sft"), tmp_path / "champion")
    assert reranker_folder("champion") == Path("champion")
