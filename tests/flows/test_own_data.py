"""Tests of docs/own-data.md: its examples are valid, its table lists all fields, and its files run from end to end."""

import json
import re
from pathlib import Path

from selftrain.problems.jsonl import _Fields, jsonl_problem
from selftrain.problems.rows import Row
from tests.command import ROOT, Finished, selftrain

PAGE = (ROOT / "docs" / "own-data.md").read_text()


def test_its_examples_are_rows_of_its_files() -> None:
    examples = [json.loads(text) for text in re.findall(r"(?m)^    (\{\"task\".*(?:\n {5}.*)*)", PAGE)]
    assert [example["task"] for example in examples] == ["plus_7", "read_plus_8"]
    for example in examples:
        problem, cleaned = jsonl_problem(Row(example, "page", "page"))
        assert (problem.response, cleaned.how) == (example["response"], "as it is")


def test_its_table_has_every_field() -> None:
    table = PAGE.partition("## The fields")[2].partition("##")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == sorted(_Fields.model_fields)


def test_its_programs_are_sound() -> None:
    done = selftrain("check-data", "docs/own-data/stdio.jsonl", "--backend", "process")
    assert done.returncode == 0, done.stdout
    # No empty program is run on tests without a checker: what they expect is never nothing.
    assert "12 problems (py 12); programs run: 12 answers, 0 empty functions" in done.stdout


def test_its_files_give_pairs_and_a_report(tmp_path: Path) -> None:
    out, store = tmp_path / "out", tmp_path / "store"
    done = selftrain("run", "docs/own-data/own.yaml", "--set", f"store={store}", "--out", str(out))
    assert done.returncode == 0, done.stderr[-3000:]
    run = Finished(store, out, done.stdout, done.stderr)
    mined = run.manifest("mine-1")["metrics"]
    assert mined["pairs"] > 0
    assert mined["problems_mixed"] > 0
    assert run.manifest("prepare")["metrics"]["problems"] == {"sft": 22, "rl": 14, "validation": 8, "test": 7}
    assert run.report["pools"]["sft"]["overall"]["problems"] == 7
