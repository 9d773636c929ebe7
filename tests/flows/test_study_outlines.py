"""Tests of what a study finds out before it runs its cells, of its folder, and of a table that cannot be written. Nothing is trained."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import flows.study
from flows.method import method
from flows.study import Outline, outlines, report, run_cells, run_study
from sandbox.verdicts import Verdict
from selftrain.errors import RunError, UsageError
from selftrain.evaluation.pools import Pool, PoolProblem
from selftrain.store.runfile import NAME
from selftrain.studyfile import Study, read_study
from tasks.run import Run


def study(folder: Path, **values: Any) -> Study:
    path = folder / "mine.yaml"
    common = {"base": "smoke", "seeds": [1], "set": {"store": str(folder / "store")}, "variants": {"a": {}}}
    path.write_text(yaml.safe_dump(common | values, sort_keys=False))
    return read_study(str(path))


def test_a_pool_that_no_run_will_have_is_told_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="pools: no run has a pool 'ppo-3'; there are: sft, ppo-1, ppo-2"):
        outlines(study(tmp_path, pools=["sft", "ppo-3"]), tmp_path / "out")


def test_variants_whose_kinds_are_the_same_in_round_1_share_it(tmp_path: Path) -> None:
    kinds = (
        {"hard_negative": 1},
        {"on_policy": 3, "easy": 1},
        {"random": 1},
        {"on_policy": 1.5, "easy": 0.5},
    )
    variants = {f"v{at}": {"mine.kinds": each} for at, each in enumerate(kinds)}
    cells = outlines(study(tmp_path, variants={"default": {}} | variants), tmp_path / "out")
    keys = [one.run.stages["rm-1"]["key"] for one in cells]
    assert keys[:4] == [keys[0]] * 4
    assert keys[4] != keys[0]
    assert len({one.run.stages["rm-2"]["key"] for one in cells}) == 5


def test_a_finished_run_whose_evaluation_is_gone_is_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found() -> Outline:
        return outlines(study(tmp_path), tmp_path / "out")[0]

    folder = tmp_path / "out" / "a-seed-1"
    folder.mkdir(parents=True)
    record = {"name": "a", "store": "", "finished": True, "seconds": 1, "config": {}, "reranker": None}
    (folder / NAME).write_text(json.dumps(record | {"stages": found().run.stages}))
    assert not found().finished  # the store is empty
    monkeypatch.setattr(Run, "is_there", lambda _, ref: ref.stage not in ("mine", "train_reward"))
    assert found().finished  # the table is not read from what is missing
    monkeypatch.setattr(Run, "is_there", lambda _, ref: ref.stage != "evaluate")
    assert not found().finished


def test_cells_with_checkers_in_other_languages_have_the_keys_of_their_runs(tmp_path: Path) -> None:
    row = {
        "task": "t",
        "language": "py",
        "prompt": "",
        "cases": [{"stdin": "", "stdout": ""}],
        "split": "test",
    }
    checked = row | {"checker": {"language": "sh", "program": "true"}}
    for name, each in (("plain", row), ("checked", checked)):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(each) + "\n")
    variants = {
        name: {
            "problems": {"source": "jsonl", "languages": ["py"], "files": [str(tmp_path / f"{name}.jsonl")]}
        }
        for name in ("plain", "checked")
    }
    cells = outlines(study(tmp_path, variants=variants), tmp_path / "out")
    assert [set(one.run.toolchain) for one in cells] == [{"py"}, {"py", "sh"}]
    alone = Run(cells[1].cell.config, cells[1].run.store)
    method(alone)
    assert cells[1].run.stages == alone.stages


def test_a_folder_is_for_one_study_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, out = study(tmp_path), tmp_path / "out"
    started: list[subprocess.Popen[bytes]] = []

    def run_cells(_: object, __: int, lock: int) -> dict[str, str]:
        started.append(subprocess.Popen(["sleep", "60"], pass_fds=[lock]))  # a cell that outlives its study
        raise RunError("killed")

    monkeypatch.setattr(flows.study, "run_cells", run_cells)
    with pytest.raises(RunError, match="killed"):
        run_study(made, out, 1, "test")
    with pytest.raises(UsageError, match="out: another study, or a run that a killed study left, is at work"):
        run_study(made, out, 1, "test")
    started[0].kill()
    started[0].wait()
    with pytest.raises(RunError, match="killed"):
        run_study(made, out, 1, "test")
    started[1].kill()
    started[1].wait()


def test_a_killed_cell_is_told_by_its_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = study(tmp_path)
    cell = Outline(made.cells[0], tmp_path, Run(made.cells[0].config, None), (), False)  # type: ignore[arg-type]
    (tmp_path / "log.txt").write_text("train_reward 3/9 steps\n")
    monkeypatch.setattr(flows.study, "_start", lambda *_: subprocess.Popen(["sh", "-c", "kill -9 $$"]))
    assert run_cells([cell], 1, 0) == {"a-seed-1": "ended by SIGKILL"}
    monkeypatch.setattr(flows.study, "_start", lambda *_: subprocess.Popen(["sh", "-c", "exit 1"]))
    assert run_cells([cell], 1, 0) == {"a-seed-1": "train_reward 3/9 steps"}


def test_a_table_that_cannot_be_written_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = PoolProblem(
        id="p", task="p", language="py", prompt="", completions=("x",), verdicts=(Verdict.passed,), logprob=np.zeros(1),
        n_tokens=np.ones(1, int), examples_passed=None, scores={"rm-1": np.zeros(1)}, greedy_passed=True,
    )  # fmt: skip
    monkeypatch.setattr(flows.study, "_is_finished", lambda *_: True)
    monkeypatch.setattr(flows.study, "finished_run", lambda _: {})
    monkeypatch.setattr(flows.study, "study_pools", lambda *_: {"sft": Pool("sft", (one,))})
    made = study(tmp_path)
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UsageError, match="out: .*File exists.*; expected a folder that can be written"):
        report(made, [Outline(made.cells[0], tmp_path, Run(made.cells[0].config, None), (), True)], {}, tmp_path / "out", "test")  # type: ignore[arg-type]  # fmt: skip
