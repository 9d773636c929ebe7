"""Tests what `selftrain run --dry-run` prints about problems in local files: sizes, duplicates, faulty tests, leaks."""

from pathlib import Path
from typing import Any

from tests.command import selftrain
from tests.selftrain.problems.made import DESCRIPTIONS, py_row, write_jsonl

SPLITS = ("sft", "sft", "rl", "rl", "validation", "test")


def rows() -> list[dict[str, Any]]:
    made = [py_row(f"p{at}", text) for at, text in enumerate(DESCRIPTIONS[: len(SPLITS)])]
    return [
        {"task": row["name"], "response": "    return 2 * n\n", "split": split}
        | {name: row[name] for name in ("language", "prompt", "tests", "stop_tokens")}
        for row, split in zip(made, SPLITS, strict=True)
    ]


def dry_run(folder: Path, rows: list[dict[str, Any]], *more: str) -> tuple[int, str]:
    files = write_jsonl(folder / "mine.jsonl", rows)
    settings = (
        "problems.source=jsonl",
        f"problems.files={files}",
        "problems.languages=[py]",
        "runtime.backend=process",
        *more,
    )
    done = selftrain("run", "smoke", "--dry-run", *(part for item in settings for part in ("--set", item)))
    return done.returncode, done.stdout + done.stderr


def test_a_dry_run_tells_sizes_near_duplicates_and_tests_that_cannot_fail(tmp_path: Path) -> None:
    made = rows()
    duplicate = made[2] | {"task": "again"}
    silent = {
        "task": "silent",
        "language": "py",
        "prompt": "# Be quiet.\n",
        "split": "rl",
        "cases": [{"stdin": "1", "stdout": ""}],
    }
    code, said = dry_run(tmp_path, [*made, duplicate, silent])
    assert code == 0, said
    assert "tasks: sft 2, rl 4, validation 1, test 1\n" in said
    assert "answers to learn from: 2 of 2 problems in sft\n" in said
    assert "the model starts from random weights, and learns from these answers alone" in said
    assert "1 pair of tasks has one text or the same tests: again = p2\n" in said
    assert "1 of 1 problem has tests that an empty function passes: silent.py\n" in said


def test_a_dry_run_tells_of_leaks(tmp_path: Path) -> None:
    made = rows()
    code, said = dry_run(tmp_path, [*made, made[0] | {"task": "again", "split": "test"}])
    assert code == 2
    assert "1 task would be evaluated on after training on them:" in said


def test_a_split_without_problems_ends_a_dry_run_as_it_ends_prepare(tmp_path: Path) -> None:
    left = [row for row in rows() if row["split"] != "test"]
    code, said = dry_run(tmp_path, left, "problems.shares={sft: 1}")
    assert (code, said.count("Traceback")) == (2, 0)
    assert "no problem in splits test; they need some: check problems.* in the config" in said
