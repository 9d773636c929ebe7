"""Tests of reading CodeContests: shared names, texts that refer to pictures, limits, unusual rows."""

import logging
from pathlib import Path
from typing import Any

import pytest

from selftrain.config import ContestsConfig
from selftrain.errors import DataError
from selftrain.problems.read import Found, find_problems
from selftrain.records import Problem, read_records, write_records
from tests.selftrain.problems.made import DESCRIPTIONS, write_jsonl


def row(name: str, text: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "description": text,
        "source": 2,
        "public_tests": {"input": [f"{len(text)}\n"], "output": ["2\n"]},
        "solutions": {"language": [3], "solution": [f"print({len(text)})"]},
    } | more


HELD = row("Held", DESCRIPTIONS[11])


def found(folder: Path, rows: list[Any], held: tuple[Any, ...] = (HELD,), **more: Any) -> Found:
    fields = {
        "languages": ["py", "cpp"],
        "shares": {"rl": 1.0},
        "train": str(write_jsonl(folder / "train.jsonl", rows)),
        "evaluation": str(write_jsonl(folder / "held.jsonl", list(held))),
    }
    return find_problems(ContestsConfig.model_validate(fields | more))


def tasks(found: Found) -> list[str]:
    """Those to train on."""
    return sorted({problem.task for problem in found.problems if problem.split != "test"})


ONE, OTHER = row("A. Sum", DESCRIPTIONS[0]), row("A. Sum", DESCRIPTIONS[1], source=3)
THIRD = row("B", DESCRIPTIONS[2])


def test_problems_of_one_name_are_told_apart_whatever_their_order(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    names = tasks(found(tmp_path, [ONE, OTHER, THIRD]))
    assert len(names) == 3
    assert all(name.startswith("A. Sum#") and len(name) == 15 for name in names[:2])
    assert names[2] == "B"
    assert f"renamed to {names[0]!r} (" in caplog.text or f"renamed to {names[1]!r} (" in caplog.text
    assert tasks(found(tmp_path, [THIRD, OTHER, ONE], languages=["cpp"])) == names
    again = found(tmp_path, [OTHER, ONE])
    by_task = {p.task: p for p in again.problems if p.language == "py"}
    first = next(p for p in by_task.values() if DESCRIPTIONS[0] in p.prompt)
    assert first.id == f"{first.task}.py"
    assert again.references[first.id] == (f"print({len(DESCRIPTIONS[0])})",)


def test_exclude_goes_by_the_shared_name_and_by_ones_own(tmp_path: Path) -> None:
    rows = [ONE, OTHER, THIRD]
    names = tasks(found(tmp_path, rows))
    both = found(tmp_path, rows, exclude=["A. Sum"])
    assert (tasks(both), both.left_out) == (["B"], {"excluded": 1})
    one = found(tmp_path, rows, exclude=[names[0]])
    assert (tasks(one), one.left_out) == (names[1:], {"excluded": 1})
    with pytest.raises(DataError, match="exclude: no task is named A. Sum#0; take the name out"):
        found(tmp_path, rows, exclude=["A. Sum#0"])


def test_what_is_excluded_may_be_broken(tmp_path: Path) -> None:
    broken = {"name": "Bad", "description": None}
    with pytest.raises(DataError, match="field 'description'"):
        found(tmp_path, [broken, THIRD])
    assert tasks(found(tmp_path, [broken, THIRD], exclude=["Bad"])) == ["B"]


def test_a_name_may_be_shared_with_a_problem_to_evaluate_on(tmp_path: Path) -> None:
    both = found(tmp_path, [ONE], held=(HELD, OTHER))
    split = {p.task.partition("#")[0]: p.split for p in both.problems if DESCRIPTIONS[1] in p.prompt}
    assert split == {"A. Sum": "test"}
    assert len({p.task for p in both.problems}) == 3


def test_the_same_row_again_counts_once(tmp_path: Path) -> None:
    again = found(tmp_path, [ONE, THIRD, ONE])
    assert (tasks(again), again.left_out) == (["A. Sum", "B"], {"is there twice": 1})
    with pytest.raises(
        DataError, match=r"held\.jsonl:1: problem 'A. Sum\.py' is there twice; first at .*train\.jsonl:1"
    ):
        found(tmp_path, [ONE], held=(ONE,))


@pytest.mark.parametrize(
    "text",
    [
        "Move as in <image> here.",
        "![a map](http://x/y.png) Go.",
        'See <IMG src="a.png"> now.',
        "so:\n\n<image>",
    ],
)
def test_a_text_that_refers_to_a_picture(tmp_path: Path, text: str) -> None:
    rows = [row("P", text), THIRD]
    without = found(tmp_path, rows)
    assert (tasks(without), without.left_out) == (["B"], {"refers to a picture": 1})
    kept = found(tmp_path, rows, pictures=True)
    assert (tasks(kept), kept.left_out) == (["B", "P"], {})


def test_words_about_pictures_are_no_pictures(tmp_path: Path) -> None:
    rows = [row("P", "Is a[i] < image size? Print `!` or a <i> tag, array[0](1), <images>.")]
    assert tasks(found(tmp_path, rows)) == ["P"]


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    rows = [
        THIRD,
        row("in", DESCRIPTIONS[3], input_file="in.txt"),
        row("out", DESCRIPTIONS[4], output_file="out.txt"),
        row("bare", DESCRIPTIONS[5], public_tests=None),
        row("gone", DESCRIPTIONS[6]),
    ]
    kept = found(tmp_path, rows, exclude=["gone"])
    assert tasks(kept) == ["B"]
    assert kept.left_out == {"reads or writes files": 2, "has no test cases": 1, "excluded": 1}


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ({"seconds": 2, "nanos": 500_000_000}, 2.5),
        ({"seconds": 0, "nanos": 100_000_000}, 0.1),
        ({"seconds": 1}, 1.0),
        ({"seconds": "7"}, 7.0),
        ({"seconds": 3, "nanos": None}, 3.0),
        ({"seconds": None, "nanos": None}, None),
        ({}, None),
        (None, None),
        (0, None),
        (2, 2.0),
        (1.5, 1.5),
        ("1.500s", 1.5),
        ("2", 2.0),
    ],
)
def test_time_limits(tmp_path: Path, given: Any, seconds: float | None) -> None:
    problems = found(tmp_path, [row("A", DESCRIPTIONS[0], time_limit=given)]).problems
    assert [p.time_limit for p in problems if p.task == "A"] == [seconds, seconds]


@pytest.mark.parametrize(
    ("given", "limit"), [(256_000_000, 256_000_000), ("64000000", 64_000_000), (0, None), (None, None)]
)
def test_memory_limits(tmp_path: Path, given: Any, limit: int | None) -> None:
    problems = found(tmp_path, [row("A", DESCRIPTIONS[0], memory_limit_bytes=given)]).problems
    assert [p.memory_limit_bytes for p in problems if p.task == "A"] == [limit, limit]


@pytest.mark.parametrize(
    "broken",
    [{"time_limit": -1}, {"time_limit": "soon"}, {"time_limit": [1]}, {"time_limit": {"seconds": "x"}}, {"time_limit": {"nanos": [1]}},
     {"memory_limit_bytes": -5}, {"memory_limit_bytes": "much"}, {"memory_limit_bytes": 1.5}],
)  # fmt: skip
def test_limits_that_are_none(tmp_path: Path, broken: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=f"train.jsonl:1: field '{next(iter(broken))}"):
        found(tmp_path, [row("A", DESCRIPTIONS[0], **broken)])


def test_objects_in_lists_codes_in_words_and_nothing_in_its_place(tmp_path: Path) -> None:
    """As protobuf's own JSON has them, and Parquet files without the hub's card."""
    plain = row(
        "A",
        DESCRIPTIONS[0],
        public_tests=[{"input": "1\n", "output": "2\n"}, {"input": "3\n", "output": "4\n"}],
        private_tests=None,
        generated_tests=[],
        solutions=[
            {"language": "PYTHON", "solution": "print 1"},
            {"language": "cpp", "solution": "int main() {}"},
            {"language": "PYTHON3", "solution": "print(1)"},
        ],
        input_file=None,
    )
    kept = found(tmp_path, [plain])
    py, cpp = (p for p in kept.problems if p.task == "A")
    assert py.cases == ({"stdin": "1\n", "stdout": "2\n"}, {"stdin": "3\n", "stdout": "4\n"})
    assert kept.references == {
        "A.py": ("print(1)",),
        "A.cpp": ("int main() {}",),
        "Held.py": (f"print({len(DESCRIPTIONS[11])})",),
    }
    with pytest.raises(DataError, match="field 'public_tests'"):
        found(tmp_path, [plain | {"public_tests": [{"input": "1\n"}]}])


def test_some_of_many_right_solutions_are_kept_to_be_tried(tmp_path: Path) -> None:
    many = {"language": [3] * 6 + ["CPP", "JAVA"], "solution": ["a", "a", "b", "c", "d", "e", "int", "class"]}
    rows = [row("A", DESCRIPTIONS[0], solutions=many)]
    kept = found(tmp_path, rows)
    assert {id: texts for id, texts in kept.references.items() if id[0] == "A"} == {
        "A.py": ("a", "b"),
        "A.cpp": ("int",),
    }
    more = found(tmp_path, rows, references=4, languages=["cpp", "py"])
    assert (more.references["A.py"], more.references["A.cpp"]) == (("a", "b", "c"), ("int",))
    assert found(tmp_path, rows, references=0).references == {}
    assert {p.response for p in kept.problems} == {None}, "rl and test learn from none"


def test_contests_have_a_rule_of_their_own_and_survive_the_store(tmp_path: Path) -> None:
    problems = found(tmp_path, [row("A", DESCRIPTIONS[0], time_limit=1, memory_limit_bytes=5)]).problems
    assert {p.compare for p in problems} == {"code-contests"}
    write_records(tmp_path / "problems.parquet", problems, Problem)
    assert read_records(tmp_path / "problems.parquet", Problem) == problems
