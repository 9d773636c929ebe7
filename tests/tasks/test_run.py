"""Tests of `Run`: damaged inputs are rebuilt, changes of the clock do no harm, pickled checkpoints are shared only on request."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from selftrain.config import RunConfig, RuntimeConfig
from selftrain.errors import CorruptArtifact
from selftrain.records import digest
from selftrain.stage import ArtifactRef, Context, Outcome, Stage
from selftrain.store.store import Store
from tasks.run import Run, Step


class Building(Run):
    """Builds at once."""

    def execute(self, step: Step, there: bool) -> None:
        """Context the step."""
        self.build(step)


def write(build: Context) -> Outcome:
    (build.folder / "text").write_text(build.config["text"])
    return Outcome(digest([]))


def copy(build: Context) -> Outcome:
    text = (build.inputs["first"] / "text").read_text()
    (build.folder / "text").write_text(text.upper())
    return Outcome(digest([]))


FIRST, SECOND = Stage("first", 1, write), Stage("second", 1, copy)


@pytest.fixture
def run(tmp_path: Path) -> Building:
    return Building(RunConfig(name="x"), Store(str(tmp_path)))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)


def test_an_input_that_was_damaged_meanwhile_is_made_again(run: Building, caplog: pytest.LogCaptureFixture):
    first = run.do(FIRST, "first", {"text": "abc"}, {})
    flip(run.store.path(first) / "text")
    second = run.do(SECOND, "second", {}, {"first": first})
    assert (run.store.path(second) / "text").read_text() == "ABC"
    assert (run.store.path(first) / "text").read_text() == "abc"
    assert "it is rebuilt" in caplog.text


def test_what_no_step_of_the_run_has_made_cannot_be_made_again(run: Building):
    with pytest.raises(CorruptArtifact, match="run again"):
        run.path(ArtifactRef("other", "0" * 32))


def test_a_clock_that_is_set_back_leaves_no_negative_seconds(run: Building, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("time.time", lambda: run.started - 3600)
    run.do(FIRST, "first", {"text": "abc"}, {})
    (manifest,) = run.store.manifests("first")
    assert 0 <= manifest["seconds"] < 60
    assert 0 <= run.seconds < 60


@pytest.mark.parametrize(
    ("deepspeed", "share", "shared"),
    [(None, None, True), ("zero2", None, False), ("zero2", True, True), (None, False, False)],
)
def test_checkpoints_that_are_pickles_are_shared_only_where_one_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deepspeed: str | None, share: bool | None, shared: bool
):
    runtime = RuntimeConfig(deepspeed=deepspeed, share_checkpoints=share)
    run = Building(RunConfig(name="x", runtime=runtime), Store(str(tmp_path)))
    asked: list[ArtifactRef] = []

    def sharing(ref: ArtifactRef, _: Path) -> AbstractContextManager[None]:
        asked.append(ref)
        return nullcontext()

    monkeypatch.setattr(run.store, "sharing_checkpoints", sharing)
    run.do(FIRST, "first", {"text": "abc"}, {})
    trained = run.do(replace(FIRST, name="trained", trains=True), "trained", {"text": "abc"}, {})
    assert asked == ([trained] if shared else [])
