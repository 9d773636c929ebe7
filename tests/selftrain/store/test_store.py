"""Tests of the artifact store: artifacts are complete or absent, verified, built once, and survive kills and full disks."""

import errno
import fcntl
import importlib.util
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from selftrain.errors import CorruptArtifact, StoreError, UsageError
from selftrain.stage import ArtifactRef, Outcome
from selftrain.store.files import Files
from selftrain.store.store import PROGRESS, Store, replace_file
from tests.needs import need
from tests.servers import moto

REF = ArtifactRef("sft", "0123456789abcdef0123456789abcdef")
OTHER = ArtifactRef("sft", "fedcba9876543210fedcba9876543210")


def write(folder: Path, text: str = "weights") -> Outcome:
    """A build: two files and a checkpoint."""
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model" / "weights.bin").write_text(text)
    (folder / "empty.json").write_text("")
    (folder / PROGRESS).mkdir(exist_ok=True)
    (folder / PROGRESS / "checkpoint").write_text("on the way")
    return Outcome("digest", {"loss": 0.5})


def stored(store: Path, ref: ArtifactRef = REF) -> tuple[Path, Path]:
    """The artifact's manifest and the folder of its files."""
    manifest = store / ref.stage / ref.key / "manifest.json"
    return manifest, manifest.parent / json.loads(manifest.read_text())["attempt"]


@pytest.mark.parametrize("name", ["../outside", "/outside", "model/../../outside"])
def test_a_manifest_that_names_files_elsewhere_is_none(tmp_path: Path, name: str):
    store = Store(str(tmp_path / "store"))
    assert store.build(REF, {}, write)
    manifest, _ = stored(tmp_path / "store")
    content = json.loads(manifest.read_text())
    content["files"][name] = {"size": 1, "sha256": "0" * 64}
    manifest.write_text(json.dumps(content))
    assert store.manifest(REF) is None
    assert store.build(REF, {}, write), "and is replaced by the next build"
    assert store.has(REF)


def test_a_machine_that_cannot_write_or_lock_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def unlocked(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    (tmp_path / "machine").mkdir()
    with pytest.raises(StoreError, match="machine.*expected a folder that can be written"):
        Store(f"memory://{tmp_path}", tmp_path).build(REF, {}, write)
    monkeypatch.setattr(fcntl, "flock", unlocked)
    with pytest.raises(StoreError, match="No locks available.*choose one"):
        Store(str(tmp_path / "store")).build(REF, {}, write)


def test_a_cache_that_cannot_be_written_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """That of a remote store, and that of checkpoints at a URL."""
    url = f"memory://{tmp_path}"
    assert Store(url, tmp_path).build(REF, {}, write)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    for act, remedy in (
        (lambda: Store(url).path(REF), True),
        (lambda: Store(url).build(OTHER, {}, write), True),
        (lambda: Files(url).download(f"{tmp_path}/machine", tmp_path / "file" / "target"), False),
    ):
        with pytest.raises(StoreError, match="(Not a directory|File exists)") as refused:
            act()
        said = str(refused.value)
        assert str(tmp_path / "file") in said
        assert "\n" not in said
        assert ("choose one with the environment variable XDG_CACHE_HOME" in said) == remedy
    store = Store(url, tmp_path / "other")

    def full(source: str, target: str) -> None:
        Path(target).write_bytes(b"a part")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store.files.fs, "get_file", full)
    with pytest.raises(StoreError, match=f"into {tmp_path}/other/.*: .Errno 28. No space left on device$"):
        store.path(REF)
    assert not list((tmp_path / "other").rglob("*.part"))


def test_an_artifact_holds_its_files_and_a_manifest_and_no_checkpoints(tmp_path: Path):
    store = Store(str(tmp_path))
    assert not store.has(REF)
    assert store.build(REF, {"label": "sft"}, write)
    assert store.has(REF)
    folder = store.path(REF)
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == {"model/weights.bin", "empty.json"}
    manifest = store.manifest(REF)
    assert manifest is not None
    # printf weights | sha256sum
    sha = "9a129038d9a00aed0cf6a7ea059ca50a"
    assert manifest["files"]["model/weights.bin"]["size"] == 7
    assert manifest["files"]["model/weights.bin"]["sha256"].startswith(sha)
    assert (manifest["label"], manifest["records_digest"], manifest["metrics"]) == (
        "sft",
        "digest",
        {"loss": 0.5},
    )
    assert [m["key"] for m in store.manifests("sft")] == [REF.key]
    assert list(store.manifests("ppo")) == []


def test_what_is_there_is_not_built_again(tmp_path: Path):
    store = Store(str(tmp_path))
    store.build(REF, {}, write)

    def never(folder: Path) -> Outcome:
        raise AssertionError("built twice")

    assert not store.build(REF, {}, never)


def test_a_build_that_fails_leaves_no_artifact_but_its_files(tmp_path: Path):
    store = Store(str(tmp_path))

    def fail(folder: Path) -> Outcome:
        write(folder)
        raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        store.build(REF, {}, fail)
    assert not store.has(REF)
    assert not (tmp_path / "sft").exists()
    with pytest.raises(CorruptArtifact, match="no manifest"):
        store.path(REF)

    def go_on(folder: Path) -> Outcome:
        assert (folder / PROGRESS / "checkpoint").read_text() == "on the way"
        return write(folder)

    assert store.build(REF, {}, go_on)


def flip(path: Path) -> None:
    """Change one bit."""
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(content)


def damage_file(store: Path) -> None:
    flip(stored(store)[1] / "model" / "weights.bin")


def shorten_file(store: Path) -> None:
    os.truncate(stored(store)[1] / "model" / "weights.bin", 3)


def delete_file(store: Path) -> None:
    (stored(store)[1] / "model" / "weights.bin").unlink()


def tear_manifest(store: Path) -> None:
    manifest = stored(store)[0]
    os.truncate(manifest, manifest.stat().st_size // 2)


def delete_manifest(store: Path) -> None:
    stored(store)[0].unlink()


def swap_manifest(store: Path) -> None:
    manifest = stored(store)[0]
    manifest.write_text(manifest.read_text().replace(REF.key, OTHER.key))


@pytest.mark.parametrize(
    "harm", [damage_file, shorten_file, delete_file, tear_manifest, delete_manifest, swap_manifest]
)
def test_what_is_not_as_it_was_stored_is_no_artifact_and_is_rebuilt(tmp_path: Path, harm: Any):
    store = Store(str(tmp_path))
    store.build(REF, {}, write)
    harm(tmp_path)
    assert not store.has(REF)
    with pytest.raises(CorruptArtifact, match="run again to rebuild it"):
        store.path(REF)
    assert store.build(REF, {}, write)
    assert (store.path(REF) / "model" / "weights.bin").read_text() == "weights"
    folders = [path for path in (tmp_path / REF.stage / REF.key).iterdir() if path.is_dir()]
    assert len(folders) == 1, "the damaged attempt is gone"


def test_replace_file_leaves_the_old_content_where_it_fails(tmp_path: Path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(TypeError):
        replace_file(tmp_path / "a", None)  # type: ignore[arg-type]
    assert (tmp_path / "a").read_text() == "old"
    replace_file(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_text() == "new"


BUILDER = """
    import sys, time
    from pathlib import Path
    from selftrain.stage import ArtifactRef, Outcome
    from selftrain.store.store import Store

    root, seconds = Path(sys.argv[1]), float(sys.argv[2])

    def make(folder):
        with (root / "builds").open("a") as log:
            log.write("build\\n")
        (folder / "half").write_text("half")
        time.sleep(seconds)
        (folder / "data").write_text("data")
        return Outcome("digest")

    print("waiting", flush=True)
    print(Store(str(root / "store")).build(ArtifactRef("sft", "aa"), {}, make), flush=True)
"""


def builder(root: Path, seconds: float) -> subprocess.Popen[str]:
    """A process that builds sft/aa in `root`/store, which takes it `seconds`."""
    command = [sys.executable, "-c", textwrap.dedent(BUILDER), str(root), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def builds(root: Path) -> int:
    """How often a builder began."""
    return len((root / "builds").read_text().splitlines()) if (root / "builds").is_file() else 0


def wait_for(condition: Any) -> None:
    """Return when `condition()` holds."""
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_of_two_processes_one_builds_and_the_other_takes_its_result(tmp_path: Path):
    both = [builder(tmp_path, 1.0) for _ in range(2)]
    said = sorted(process.communicate(timeout=120)[0].split()[-1] for process in both)
    assert said == ["False", "True"]
    assert builds(tmp_path) == 1


def test_a_killed_builder_blocks_nobody_and_its_files_are_there_for_the_next(tmp_path: Path):
    killed = builder(tmp_path, 600)
    wait_for(lambda: builds(tmp_path) == 1)
    waiting = builder(tmp_path, 0)
    assert waiting.stdout is not None
    assert waiting.stdout.readline() == "waiting\n"
    time.sleep(0.5)
    assert builds(tmp_path) == 1, "the second waits for the first"
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert waiting.communicate(timeout=120)[0] == "True\n"
    store, ref = Store(str(tmp_path / "store")), ArtifactRef("sft", "aa")
    assert {path.name for path in store.path(ref).iterdir()} == {"half", "data"}
    assert builds(tmp_path) == 2


@pytest.mark.parametrize("place", ["file/store", "/proc/selftrain-store"])
def test_a_store_that_cannot_be_written_says_so(tmp_path: Path, place: str):
    (tmp_path / "file").write_text("not a folder")
    store = Store(str(tmp_path / place))
    with pytest.raises(StoreError, match="store") as raised:
        store.build(REF, {}, write)
    assert str(tmp_path / place) in str(raised.value)
    assert raised.value.exit_code == 1


def test_an_unknown_kind_of_store_says_what_is_expected():
    with pytest.raises(UsageError, match=r"expected a folder or an fsspec URL"):
        Store("nonsense://bucket/path")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    need(os.geteuid() == 0, "only root can mount a small file system")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(tmp_path)], capture_output=True, text=True
    )
    need(done.returncode == 0, f"cannot mount a tmpfs here: {done.stderr.strip()}")
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def fill(path: Path) -> None:
    """Write into `path` until the disk is full."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass


def test_a_full_disk_fails_the_build_and_loses_nothing(small_disk: Path):
    store = Store(str(small_disk))
    store.build(REF, {}, write)

    def too_much(folder: Path) -> Outcome:
        write(folder)
        (folder / "large").write_bytes(bytes(1 << 20))
        raise AssertionError("there is room for a MiB on this disk")

    with pytest.raises(StoreError, match="No space left"):
        store.build(OTHER, {}, too_much)
    assert store.has(REF)
    assert not store.has(OTHER)


def test_a_disk_that_fills_up_at_the_end_keeps_what_the_build_needs_to_go_on(small_disk: Path):
    store = Store(str(small_disk))

    def fills_up(folder: Path) -> Outcome:
        outcome = write(folder)
        fill(small_disk / "ballast")
        return outcome

    with pytest.raises(StoreError, match="No space left"):
        store.build(REF, {}, fills_up)
    assert not store.has(REF)
    (small_disk / "ballast").unlink()
    kept = []

    def go_on(folder: Path) -> Outcome:
        kept.extend(path.name for path in folder.rglob("*") if path.is_file())
        return write(folder)

    assert store.build(REF, {}, go_on)
    assert sorted(kept) == ["checkpoint", "empty.json", "weights.bin"]


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """URL of a folder in a bucket of an S3 server in this process."""
    need(importlib.util.find_spec("moto") is not None, "moto[server] is not installed")
    with moto() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server.store("runs")


@pytest.fixture(params=["file", "memory", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store, of each kind."""
    name = uuid.uuid4().hex
    if request.param == "s3":
        return f"{request.getfixturevalue('bucket')}/{name}"
    return f"memory://{name}" if request.param == "memory" else f"file://{tmp_path}/{name}"


def test_a_store_of_any_kind_keeps_verifies_and_rebuilds(url: str, tmp_path: Path):
    store = Store(url, tmp_path / "local")
    assert not store.has(REF)
    assert store.build(REF, {"label": "sft"}, write)
    assert not store.build(REF, {}, write)
    assert (store.path(REF) / "model" / "weights.bin").read_text() == "weights"
    assert [manifest["label"] for manifest in store.manifests("sft")] == ["sft"]
    elsewhere = Store(url, tmp_path / "another machine")
    assert elsewhere.has(REF)
    assert (elsewhere.path(REF) / "model" / "weights.bin").read_text() == "weights"
    assert not (tmp_path / "local" / "work" / REF.stage / REF.key).exists()

    manifest = store.manifest(REF)
    assert manifest is not None
    filesystem, root = fsspec.core.url_to_fs(url)
    where = f"{root}/{REF.stage}/{REF.key}/{manifest['attempt']}/model/weights.bin"
    filesystem.pipe_file(where, b"weightz")
    assert not store.has(REF)
    with pytest.raises(CorruptArtifact, match=r"model/weights\.bin"):
        Store(url, tmp_path / "third machine").path(REF)
    assert store.build(REF, {}, write)
    assert store.has(REF)


def test_a_damaged_copy_of_a_remote_file_is_fetched_again(tmp_path: Path):
    store = Store(f"memory://{uuid.uuid4().hex}", tmp_path / "local")
    store.build(REF, {}, write)
    flip(store.path(REF) / "model" / "weights.bin")
    assert (store.path(REF) / "model" / "weights.bin").read_text() == "weights"


def test_another_machine_goes_on_from_the_parts_that_are_kept(url: str, tmp_path: Path):
    (tmp_path / "part").write_text("shard one")
    (tmp_path / "bad").write_text("shard two")
    store = Store(url, tmp_path / "local")
    store.put_progress(REF, "executions-00001.parquet", tmp_path / "part")
    store.put_progress(REF, "sub/executions-00002.parquet", tmp_path / "bad")
    assert not store.has(REF)
    (damaged,) = (name for name in store.files.listing(store.root) if name.endswith("00002.parquet"))
    store.files.write(f"{store.root}/{damaged}", b"shard twx")

    other = Store(url, tmp_path / "another machine")
    assert other.get_progress(REF, tmp_path / "got") == ["executions-00001.parquet"]
    assert (tmp_path / "got" / "executions-00001.parquet").read_text() == "shard one"
    assert [path.name for path in (tmp_path / "got").rglob("*") if path.is_file()] == [
        "executions-00001.parquet"
    ]
    (tmp_path / "got" / "executions-00001.parquet").write_text("its own")
    assert other.get_progress(REF, tmp_path / "got") == ["executions-00001.parquet"]
    assert (tmp_path / "got" / "executions-00001.parquet").read_text() == "its own"
    assert other.get_progress(OTHER, tmp_path / "got") == []

    assert other.build(REF, {}, write)
    assert other.get_progress(REF, tmp_path / "more") == []
    assert not [name for name in store.files.listing(store.root) if "progress" in name]
