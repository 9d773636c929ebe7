"""Tests of `selftrain study` through the real command line: shared stages, a failed run, the tables, and resuming."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from tests.command import Finished, selftrain


def write(path: Path, **values: object) -> str:
    path.write_text(yaml.safe_dump({"base": "smoke", "seeds": [1]} | values, sort_keys=False))
    return str(path)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"axes": {"mine.treshold": [0]}}, "no such setting; did you mean mine.threshold?"),
        ({"base": "nowhere", "variants": {"a": {}}}, "no config 'nowhere'"),
        ({"variants": {"a": {}, "b": {"rounds": 2}}}, "the variants a and b are the same run"),
    ],
)
def test_a_wrong_study_is_told_in_one_line(tmp_path: Path, values: dict[str, object], said: str) -> None:
    done = selftrain("study", write(tmp_path / "mine.yaml", **values))
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert said in line


def test_variants_that_differ_in_nothing_that_a_stage_reads_are_told(tmp_path: Path) -> None:
    # Round 1 mines no hard negatives, so with one round their threshold changes no stage.
    variants = {"a": {"rounds": 1}, "b": {"rounds": 1, "mine.threshold": 0.1}}
    done = selftrain("study", write(tmp_path / "mine.yaml", variants=variants), "--dry-run", cwd=tmp_path)
    assert done.returncode == 2
    assert "the variants a and b are the same run" in done.stderr.splitlines()[-1]


def test_a_study_shares_stages_reports_a_failure_and_resumes(smoke_run: Finished, tmp_path: Path) -> None:
    store = shutil.copytree(smoke_run.store, tmp_path / "store")
    variants = {"two": {}, "one": {"rounds": 1}, "broken": {"ppo.health.max_kl": 1e-12}}
    study = write(tmp_path / "mine.yaml", set={"store": str(store)}, variants=variants)
    arguments = ("study", study, "--out", str(tmp_path / "out"))
    plan = selftrain(*arguments, "--dry-run")
    assert plan.returncode == 0, plan.stderr
    cells = {line.split()[0]: line.split()[1:5] for line in plan.stdout.splitlines()[1:4]}
    assert cells["two-seed-1"] == ["20", "19", "0", "1"]  # only its report is to do, which has the run's name
    assert cells["one-seed-1"] == ["13", "11", "0", "2"]  # and its evaluation
    assert not (tmp_path / "out").exists()

    done = selftrain(*arguments)
    assert done.returncode == 1, done.stderr
    assert "broken-seed-1: failed after" in done.stderr
    assert "ppo diverged at step" in done.stderr
    table = json.loads((tmp_path / "out" / "test.json").read_text())
    assert (table["split"], table["baseline"], table["seeds"]) == ("test", "two", {"two": [1], "one": [1]})
    assert list(table["missing"]) == ["broken-seed-1"]
    for row in table["rows"]:
        if (
            row["variant"] == "two"
            and row["minus"] is None
            and row["ranker"] in ("random", "greedy", "oracle")
        ):
            alone = smoke_run.report["pools"]["sft"]["overall"][row["ranker"]]["value"]
            assert (row["problems"], row["value"]) == (16, pytest.approx(alone))
    assert "Not in the table: broken-seed-1" in done.stdout

    again = selftrain(*arguments, "--split", "validation")
    assert again.returncode == 1
    assert "2 of 3 cells are finished already" in again.stderr
    assert "two-seed-1: started" not in again.stderr
    assert "Split: **validation**" in (tmp_path / "out" / "validation.md").read_text()

    both = [str(tmp_path / "out" / name) for name in ("two-seed-1", "one-seed-1")]
    compared = json.loads(selftrain("compare", *both, "--json").stdout)
    rows = [
        row for row in compared["rows"] if row["pool"] == "sft" and row["minus"] == [both[0], row["ranker"]]
    ]
    assert {row["ranker"] for row in rows} >= {"random", "reranker", "chosen", "oracle"}
    twice = selftrain("compare", *both, str(smoke_run.out))
    assert (twice.returncode, "whose problems would count twice" in twice.stderr) == (2, True)
