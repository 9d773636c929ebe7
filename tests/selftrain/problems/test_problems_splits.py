"""Tests of splitting by task, and of finding problems that are both trained and evaluated on."""

from collections import Counter
from dataclasses import replace

import pytest

from selftrain.errors import DataError
from selftrain.problems.leaks import check_leaks, same_problem
from selftrain.problems.splits import assign_splits, split_of
from selftrain.records import Problem
from tests.selftrain.problems.made import DESCRIPTIONS, py_row, sh_row

SHARES = {"sft": 0.5, "rl": 0.3, "validation": 0.2}


def problem(row: dict, split: str = "") -> Problem:
    return Problem(
        id=f"{row['name']}.{row['language']}",
        task=row["name"],
        language=row["language"],
        prompt=row["prompt"],
        tests=row["tests"],
        split=split,
        source=f"{split or 'some'}.jsonl",
    )


def test_the_split_is_a_matter_of_seed_and_name() -> None:
    """sha256("0/a") begins with d3216b8d, 0.825 of the way; sha256("1/a") with bf1d9877, 0.747."""
    assert split_of("a", SHARES, 0) == "validation"
    assert split_of("a", SHARES, 1) == "rl"
    assert split_of("a", {"test": 0.18, "sft": 0.82}, 0) == "test"
    assert split_of("a", {"test": 0.17, "sft": 0.83}, 0) == "sft"


def test_the_shares_are_met() -> None:
    counts = Counter(split_of(f"task {at}", SHARES, 7) for at in range(5000))
    for split, share in SHARES.items():
        assert abs(counts[split] / 5000 - share) < 0.03  # 4 standard errors


def test_a_task_is_in_one_split_in_all_languages_and_stays_there() -> None:
    rows = [make(f"t{at}", text) for at, text in enumerate(DESCRIPTIONS) for make in (py_row, sh_row)]
    all_of_them = {p.id: p.split for p in assign_splits([problem(row) for row in rows], SHARES, 3)}
    assert all(all_of_them[f"t{at}.py"] == all_of_them[f"t{at}.sh"] for at in range(12))
    assert len(set(all_of_them.values())) > 1
    some = assign_splits([problem(row) for row in reversed(rows[:6])], SHARES, 3)
    assert all(p.split == all_of_them[p.id] for p in some)


def test_one_problem_under_two_names_goes_to_one_split() -> None:
    rows = [py_row(f"t{at}", DESCRIPTIONS[0], function=f"f_{at}") for at in range(20)]
    assert len({p.split for p in assign_splits([problem(row) for row in rows], SHARES, 3)}) == 1


def test_same_problem_goes_through_chains() -> None:
    """c is b in its words, b is a in its tests."""
    a, b, c = py_row("a", DESCRIPTIONS[0]), py_row("b", DESCRIPTIONS[1]), py_row("c", DESCRIPTIONS[1])
    b["tests"] = a["tests"]
    others = py_row("d", DESCRIPTIONS[2])
    assert same_problem([problem(row) for row in (c, others, b, a)]) == {
        "a": "a",
        "b": "a",
        "c": "a",
        "d": "d",
    }


HELD = py_row(
    "Held_1_it", "Given a list of whole numbers, return the sum of the even ones.", function="even_sum"
)


@pytest.mark.parametrize(
    ("used", "kind"),
    [
        (py_row("Held_1_it", DESCRIPTIONS[1]), "task"),
        (sh_row("held-1-it", DESCRIPTIONS[1]), "task"),
        (
            py_row("x", "given a list of whole numbers: return the  SUM of the even ones", function="g"),
            "text",
        ),
        (
            sh_row("x", "Given an array of whole numbers, return the sum of the even ones.", function="g"),
            "text",
        ),
        (
            py_row("x", DESCRIPTIONS[1], tests=HELD["tests"].replace("even_sum", "f").replace(" ", "  ")),
            "tests",
        ),
    ],
)
@pytest.mark.parametrize(
    "splits", [("test", "sft"), ("test", "rl"), ("test", "validation"), ("validation", "rl")]
)
def test_a_leak_is_found(used: dict, kind: str, splits: tuple[str, str]) -> None:
    held = problem(HELD, splits[0])
    trained = problem(used, splits[1])
    with pytest.raises(DataError) as caught:
        check_leaks([trained, problem(py_row("other", DESCRIPTIONS[2]), "sft"), held])
    assert (
        f"Held_1_it.py ({splits[0]}, {splits[0]}.jsonl) has the {kind} of {trained.id} ({splits[1]}"
        in str(caught.value)
    )
    assert f"`problems.exclude`: [{trained.task}]" in str(caught.value)
    assert str(caught.value).startswith("1 task would be evaluated on")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("HumanEval/11", "HumanEval_11_string_xor"),
        ("mbpp_9_find_Rotations", "Mbpp/9"),
        ("MBPP_plus_9", "mbpp_9_find_Rotations"),
    ],
)
def test_the_known_benchmarks_are_told_by_their_numbers(one: str, other: str) -> None:
    rows = [problem(py_row(one, DESCRIPTIONS[0]), "sft"), problem(py_row(other, DESCRIPTIONS[1]), "test")]
    with pytest.raises(DataError, match="has the task of"):
        check_leaks(rows)


def test_different_problems_are_no_leak() -> None:
    numbered = [
        problem(py_row("HumanEval_1_f", DESCRIPTIONS[0]), "sft"),
        problem(py_row("HumanEval_11_f", DESCRIPTIONS[1]), "test"),
    ]
    check_leaks(numbered)
    bare = [
        problem(py_row("a", "", prompt="def f(n):\n", tests="assert f(1) == 2"), "sft"),
        problem(py_row("b", "", prompt="def f(n):\n", tests="assert f(1) == 3"), "test"),
    ]
    check_leaks(bare)
    check_leaks(
        [
            problem(py_row("a", "Sort the list."), "sft"),
            problem(py_row("b", "Sort the list.", tests="x"), "test"),
        ]
    )


def test_the_name_of_the_language_does_not_count() -> None:
    one = py_row("a", "Write a python function to count the even numbers of a list.")
    other = py_row("b", "Write a C# function to count the even numbers of a vector.", function="G")
    with pytest.raises(DataError, match="has the text of"):
        check_leaks([problem(one, "sft"), problem(other, "test")])


def test_the_same_inputs_and_outputs_are_the_same_problem() -> None:
    cases = tuple({"stdin": f"{n}", "stdout": f"{n * n}"} for n in range(3))
    one, other = (
        problem(py_row(name, text, tests="")) for name, text in zip("ab", DESCRIPTIONS, strict=False)
    )
    check_leaks([replace(one, split="sft", cases=cases[:2]), replace(other, split="test", cases=cases[:2])])
    with pytest.raises(DataError, match=r"b\.py .* has the tests of a\.py"):
        check_leaks([replace(one, split="sft", cases=cases), replace(other, split="test", cases=cases)])


def test_a_function_named_by_a_word_does_not_hide_that_word() -> None:
    largest = py_row("a", "Find the maximum of the two given numbers.", function="maximum")
    smallest = py_row(
        "b",
        "Find the minimum of the two given numbers.",
        function="minimum",
        tests="assert minimum(2, 1) == 1",
    )
    check_leaks([problem(largest, "sft"), problem(smallest, "test")])


def test_one_task_in_two_training_splits() -> None:
    row = py_row("a", DESCRIPTIONS[0])
    with pytest.raises(DataError, match=r"a\.py \(rl, rl\.jsonl\) has the task of a\.sh \(sft"):
        check_leaks([problem(sh_row("a", DESCRIPTIONS[1]), "sft"), problem(row, "rl")])
    check_leaks(
        [problem(py_row("b", DESCRIPTIONS[0]), "sft"), problem(row, "rl")]
    )  # the same text is allowed there


def test_only_the_first_leaks_are_listed() -> None:
    rows = [py_row(f"t{at}", text) for at, text in enumerate(DESCRIPTIONS[:8])]
    with pytest.raises(DataError) as caught:
        check_leaks([problem(row, split) for row in rows for split in ("sft", "test")])
    assert str(caught.value).startswith("8 tasks")
    assert str(caught.value).count("has the task of") == 5
    assert "and 3 more" in str(caught.value)
