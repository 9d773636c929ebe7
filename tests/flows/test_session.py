"""Tests of run.json, which must list the stages so far and why the run ended, however it ended."""

import json
from pathlib import Path

import pytest

from flows.method import Outline, method
from flows.session import carry_out, open_run
from selftrain.configfile import load_config
from selftrain.errors import RunError
from selftrain.stage import ArtifactRef
from selftrain.store.store import Store
from tasks.run import Run
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
