"""Tests of the folders of runs: nothing of an earlier run is lost, and the link of a name leads to its newest run."""

import json
import multiprocessing
import os
from pathlib import Path
from uuid import UUID

import pytest

from selftrain.errors import UsageError
from selftrain.store.runfile import OWN, find_run, followed, stage_place
from selftrain.store.runfolder import in_use, link_newest, new_id, own_folder

IDS = [f"2026113{day}T020000Z-{digits}" for day, digits in ((0, "ffffffff"), (1, "00000000"))]


def begin(parent: Path, id: str, name: str = "demo") -> Path:
    """The folder of a run that has begun, with what is said about it in the file `said`."""
    folder = own_folder(parent, name, id)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps({"store": str(parent / "store"), "started": 0.0, "id": id}))
    (folder / "said").write_text(str(link_newest(folder)))
    return folder


def test_each_run_has_its_folder_and_the_name_leads_to_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    first, second = (begin(tmp_path / "runs", id) for id in IDS)
    begin(tmp_path / "runs", IDS[0], "demo-2")
    assert os.readlink(tmp_path / "runs" / "demo") == second.name == f"demo.{IDS[1]}"
    assert (first / "run.json").is_file()
    monkeypatch.chdir(tmp_path)
    for place in ("demo", "runs/demo", tmp_path / "runs" / "demo"):
        assert find_run(place).resolve() == second
    assert find_run(first) == find_run(first.name).resolve() == first
    assert "None" in (second / "said").read_text()


def test_a_run_that_starts_again_has_its_folder_and_takes_no_link_from_a_newer_one(tmp_path: Path):
    flow_run = str(UUID(int=0x01234567_89AB_CDEF_8123_456789ABCDEF))
    began = own_folder(tmp_path, "demo", new_id(flow_run))
    assert began.name.endswith("Z-89abcdef")
    began.mkdir()
    again = f"20991231T235959Z-{flow_run[-8:]}"
    assert own_folder(tmp_path, "demo", again) == began
    assert own_folder(tmp_path, "demo-2", again).name == f"demo-2.{again}", "another name"
    assert own_folder(tmp_path, "demo", new_id()) != began
    newer = begin(tmp_path, "20991231T000000Z-00000000")
    assert link_newest(began) is None
    assert followed(tmp_path / "demo") == newer


@pytest.mark.parametrize("content", ['{"store": "s3://b/store", "started": 1764554400.5}', "damaged", "[]"])
def test_a_folder_of_an_earlier_version_becomes_one_of_the_runs(tmp_path: Path, content: str):
    old = tmp_path / "demo"
    old.mkdir()
    (old / "run.json").write_text(content)
    os.utime(old / "run.json", (1764554400, 1764554400))
    (old / "report.html").write_text("figures")
    new = begin(tmp_path, IDS[1])
    (kept,) = tmp_path.glob("demo.20251201T020000Z-*")
    assert OWN.fullmatch(kept.name)
    assert (kept / "report.html").read_text() == "figures"
    assert (new / "said").read_text().startswith(f"{old}, the folder of an earlier run, is now {kept}")
    assert followed(old) == new


def test_what_is_no_run_or_holds_a_store_too_stays(tmp_path: Path):
    for name, files in (("study", ["test.md"]), ("both", ["run.json", "store/sft/x"]), ("file", [])):
        for file in files:
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).write_text(json.dumps({"store": str(tmp_path / name / "store")}))
    (tmp_path / "file").write_text("")
    for name in ("study", "both", "file"):
        folder = begin(tmp_path, IDS[0], name)
        assert (
            (folder / "said")
            .read_text()
            .startswith(f"{tmp_path / name} is in use by another run, or holds other files")
        )
        assert not (tmp_path / name).is_symlink()
        assert len(list(tmp_path.glob(f"{name}.*"))) == 1
    assert find_run(tmp_path / "study") == tmp_path / f"study.{IDS[0]}"


def test_the_folder_of_a_run_that_is_at_work_stays_its_own(tmp_path: Path):
    """As with `--out runs/demo`: it would write its report into the folder of the next run, through the link."""
    chosen = tmp_path / "demo"
    chosen.mkdir()
    (chosen / "run.json").write_text("{}")
    with in_use(chosen), in_use(chosen):
        first = begin(tmp_path, IDS[0])
        assert chosen.is_dir()
        assert not chosen.is_symlink()
        assert f"this run is found as {first} only" in (first / "said").read_text()
    second = begin(tmp_path, IDS[1])
    assert followed(chosen) == second


def test_without_links_and_with_one_that_leads_nowhere_the_name_is_the_newest_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    first, second = (begin(tmp_path, id) for id in IDS)
    second.rename(tmp_path / "away")
    assert find_run(tmp_path / "demo") == first
    (tmp_path / "demo").unlink()

    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", refused)
    said = link_newest(first)
    assert said is not None
    assert said.startswith(f"cannot make the link {tmp_path / 'demo'} to the newest run ([Errno 1]")
    assert find_run(tmp_path / "demo") == first
    with pytest.raises(UsageError, match=r"no run\.json there"):
        find_run(tmp_path / "dem")


def test_runs_that_begin_at_once_lose_neither_each_other_nor_the_old_folder(tmp_path: Path):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "run.json").write_text('{"old": true}')
    ids = [f"20261130T020000Z-{number:08x}" for number in range(24)]
    with multiprocessing.get_context("fork").Pool(8) as pool:
        made = pool.starmap(begin, [(tmp_path, id) for id in ids], chunksize=1)
    found = {path: json.loads((path / "run.json").read_text()) for path in tmp_path.glob("demo.*")}
    assert [record.get("id") for path, record in sorted(found.items()) if path in made] == ids
    assert [record for path, record in found.items() if path not in made] == [{"old": True}]
    assert followed(tmp_path / "demo") == made[-1]
    assert sorted(path.name for path in tmp_path.glob(".*")) == [".lock"]


@pytest.mark.parametrize(
    ("record", "state"),
    [
        ({"finished": False}, "unfinished"),
        ({"finished": False, "failed": ["sft"]}, "failed"),
        ({"finished": True}, ""),
    ],
)
def test_what_a_run_that_has_not_ended_lacks_is_told_with_why(record: dict, state: str) -> None:
    with pytest.raises(UsageError) as raised:
        stage_place({"name": "demo", "stages": {"prepare": {}}} | record, "evaluate")
    assert "has no stage evaluate; expected one of prepare" in str(raised.value)
    assert (f"The run is {state}: wait for its end, or run it again" in str(raised.value)) is bool(state)
