"""Tests of run.json, which must list the stages so far and why the run ended, however it ended."""

import json
from pathlib import Path
from typing import Any

import pytest

from flows import local
from flows.cli import main
from flows.method import Outline, method
from flows.session import carry_out, open_run
from flows.study import _alone
from selftrain.configfile import load_config
from selftrain.errors import RunError, UsageError
from selftrain.stage import ArtifactRef, Context, Outcome, Stage
from selftrain.store.runfile import find_run
from selftrain.store.store import Store
from tasks.prefect import PrefectRun
from tasks.run import Run, Step
from tasks.stages import prepare
from tests.command import selftrain


def ending(folder: Path, error: BaseException | None, prepared: bool = True) -> dict[str, object]:
    """run.json of a run of `smoke` that ends with `error` in its second stage, or without `prepared` in its first; it made nothing."""
    run, out = open_run(Run, "smoke", {"store": str(folder / "store")}, None, str(folder / "runs" / "made"))

    def method(run: Run) -> ArtifactRef:
        if prepared:
            prepare(run)
        before = json.loads((out / "run.json").read_text())
        assert (before["finished"], before["failed"]) == (False, None)
        assert list(before["stages"]) == ["prepare"] * prepared
        assert error is not None
        raise error

    with pytest.raises(type(error)):
        carry_out(run, out, method)
    return json.loads((out / "run.json").read_text())


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RunError("none of 3 problems has pairs; sample more"), "none of 3 problems has pairs; sample more"),
        (OSError("https://user:secret@host/"), "OSError; the run's log has the details"),
        (KeyboardInterrupt(), "interrupted"),
        (SystemExit(1), "interrupted"),
    ],
)
def test_a_run_says_why_it_ended(tmp_path: Path, error: BaseException, reason: str) -> None:
    record = ending(tmp_path, error)
    assert (record["finished"], record["failed"]) == (False, reason)
    assert list(record["stages"]) == ["prepare"]
    folder = str(tmp_path / "runs" / "made")
    shown = selftrain("show", folder).stdout
    assert shown.endswith(f"\nended in prepare: {reason}\n")
    assert " failed\n" in shown
    listed = selftrain("runs", str(tmp_path / "runs")).stdout
    assert "failed" in listed
    assert listed.endswith(f"  0 stages  ended in prepare: {reason}\n")


def test_a_run_that_was_killed_says_how_far_it_came(tmp_path: Path) -> None:
    record = ending(tmp_path, RunError("x"), prepared=False) | {"failed": None}
    folder = tmp_path / "runs" / "made"
    (folder / "run.json").write_text(json.dumps(record))
    assert "not finished: the run is still going, or was interrupted" in selftrain("show", str(folder)).stdout
    assert "unfinished" in selftrain("runs", str(tmp_path / "runs")).stdout


REPORT = Stage("report", 1, lambda build: reported(build))


def reported(build: Context) -> Outcome:
    (build.folder / "report.json").write_text('{"seconds": {}}')
    (build.folder / "report.html").write_text("a report")
    return Outcome("0")


class Building(Run):
    """Builds its only step, a report, at once."""

    def execute(self, step: Step, there: bool) -> None:
        """Build the step unless it is there."""
        if not there:
            self.build(step)


def finished(*arguments: Any) -> Path:
    """The folder of a finished run whose only stage is a report."""
    run, folder = open_run(Building, *arguments)
    content = carry_out(run, folder, lambda run: run.do(REPORT, "report", {}, {}))
    assert content["folder"] == str(folder)
    assert (run.store.root / Path("runs", run.config.name, f"{run.id}.json")).is_file()
    return folder


def test_a_cached_run_leaves_the_folder_and_the_figures_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    first = finished("smoke", {"name": "night"}, None, None)
    before = {path.name: path.read_bytes() for path in first.iterdir()}
    monkeypatch.setattr("selftrain.store.runfolder.time.time", lambda: 4e9)
    second = finished("smoke", {"name": "night"}, None, None)
    finished("smoke", {"name": "night"}, None, None, "-evaluate")
    assert {path.name: path.read_bytes() for path in first.iterdir()} == before
    assert json.loads((second / "report.json").read_text())["cached"] == ["report"]
    assert Path("runs/night/report.html").samefile(second / "report.html")
    assert main(["runs"]) == 0
    listed = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    assert [(line[0].split()[0], line[-1]) for line in listed] == [
        (f"night-evaluate.{find_run('night-evaluate').name[-25:]}", "newest: night-evaluate"),
        (first.name, "1 stage"),
        (second.name, "newest: night"),
    ]
    with pytest.raises(UsageError, match=rf"runs/night is a link to the newest run, runs/{second.name}, "):
        finished("smoke", {}, None, "runs/night")
    with (
        pytest.raises(UsageError, match="runs/night: this is the folder of a run"),
        _alone(Path("runs/night")),
    ):
        pass


def test_a_flow_run_that_starts_again_goes_on_in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__ID", "01234567-89ab-cdef-8123-456789abcdef")
    for now in (1e9, 2e9):
        monkeypatch.setattr("selftrain.store.runfolder.time.time", lambda now=now: now)
        run, folder = open_run(PrefectRun, "smoke", {}, None, None)
        assert (str(folder), run.id) == (f"runs/smoke.{run.id}", "20010909T014640Z-89abcdef")
        run.write(folder, finished=False)
    assert Run(run.config, run.store).id != run.id, "outside of a flow"


def test_another_judge_makes_executions_anew_and_what_depends_on_them(tmp_path: Path):
    """As when `JUDGE_VERSION` or a tool has changed: identities of verdicts are other ones."""

    def keys(judge: str) -> dict[str, str]:
        config = load_config("smoke", {"store": str(tmp_path)})
        run = Outline(config, Store(str(tmp_path)), toolchain=dict.fromkeys(config.problems.languages, judge))
        method(run)
        return {name: str(step.ref) for name, step in run.steps.items()}

    before, after = keys("one"), keys("two")
    assert before == keys("one")
    kept = {name for name, ref in before.items() if after[name] == ref}
    # The bank's problems are made with their tests, and nothing judged enters the SFT policy or its samples.
    assert kept == {"prepare", "sft", "sample-sft-rl", "sample-sft-evaluation"}


def test_a_run_says_that_it_starts_a_server_before_it_waits_for_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    def start() -> None:
        raise RunError("it does not come up")

    monkeypatch.setattr("flows.server.start", start)
    with temporary_settings(restore_defaults={PREFECT_API_URL}), pytest.raises(RunError, match="come up"):
        local._connect()
    assert "starting a Prefect server for this run" in capsys.readouterr().err
