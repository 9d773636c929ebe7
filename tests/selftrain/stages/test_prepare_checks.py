"""Tests of finding faulty problems by running answers and empty functions."""

import json
from pathlib import Path
from typing import Any

import pytest

from selftrain.config import JsonlConfig, RuntimeConfig
from selftrain.errors import DataError
from selftrain.problems.read import Found, find_problems
from selftrain.records import Problem, read_records
from selftrain.stages.prepare import PREPARE, PrepareSlice
from selftrain.stages.prepare_checks import EMPTY_BODIES, check
from tasks.sandbox import open_sandbox
from tests.contexts import judging
from tests.needs import need
from tests.selftrain.problems.made import write_jsonl

RUNTIME = RuntimeConfig(backend="process", workers=2)


def function(
    task: str, text: str, name: str, body: str, asserts: dict[str, str], split: str = "rl", **more: Any
) -> dict[str, Any]:
    """A row that asks for a function of one argument; `asserts`: argument -> value, both in Python."""
    return {
        "task": task,
        "language": "py",
        "prompt": f'def {name}(x):\n    """{text}"""\n',
        "tests": "".join(f"assert {name}({given}) == {value}\n" for given, value in asserts.items()),
        "response": f"    return {body}\n",
        "split": split,
    } | more


def stdio(
    task: str, text: str, code: str, cases: dict[str, str], split: str = "rl", **more: Any
) -> dict[str, Any]:
    return {
        "task": task,
        "language": "py",
        "prompt": f"# {text}\n",
        "cases": [{"stdin": stdin, "stdout": stdout} for stdin, stdout in cases.items()],
        "response": code,
        "split": split,
    } | more


ROWS = [
    function("longest", "Give the longest word of a sentence.", "longest", "max(x.split(), key=len)", {"'a bb'": "'bb'", "'ccc d'": "'ccc'"}, "sft"),
    # wrong answers: of one to learn from, of one to train on, one that does not even compile
    function("halved", "Half of a whole number, rounded towards nothing.", "halved", "x // 3", {"9": "4", "4": "2"}, "sft"),
    function("initials", "First letters of all words, one after the other.", "initials", "x[:2]", {"'red sky'": "'rs'", "'a b c'": "'abc'"}),
    function("ceiling", "The next multiple of ten.", "ceiling", "x +", {"11": "20", "5": "10"}, "sft"),
    # nothing can fail: no assert, a value compared with itself, errors that are caught
    function("rain", "Millimetres of rain in a week of such days.", "rain", "7 * x", {}, tests="rain(3)\n"),
    function("echoed", "The sound that comes back from a mountain wall.", "echoed", "x[::-1]", {"'ho'": "echoed('ho')"}),
    function("caught", "Fish in the net by the number of boats.", "caught", "x * 12", {}, tests="try:\n    assert caught(2) == 24\nexcept Exception:\n    pass\n"),
    # one problem under two names, in other words, with other tests
    function("evens", "Keep those numbers that two divides.", "evens", "[n for n in x if n % 2 == 0]", {"[1, 2, 4]": "[2, 4]", "[8, 5]": "[8]"}),
    function("without_odd", "Drop whatever cannot be shared fairly by a couple.", "pick", "[n for n in x if not n % 2]", {"[3, 6]": "[6]", "[7, 10, 12, 1]": "[10, 12]"}, "test"),
    # near, but not the same: of the same words, or the same on one's own tests alone
    function("odds", "Keep those numbers that two does not divide.", "odds", "[n for n in x if n % 2 == 1]", {"[1, 2, 4]": "[1]", "[8, 5]": "[5]"}, "test"),
    function("total", "The sum of all numbers.", "total", "sum(x)", {"[1, 2]": "3", "[]": "0", "[4]": "4"}, "validation"),
    function("largest", "The largest of all numbers, or nothing.", "largest", "max(x, default=0)", {"[4]": "4", "[]": "0", "[5, 6]": "6"}),
    # programs: one that prints nothing is right, two that are one
    stdio("silence", "Print nothing at all, whatever comes in.", "input()\n", {"1\n": "", "2\n": "\n"}),
    stdio("area", "Width and height come in, print how large the rectangle is.", "a, b = map(int, input().split())\nprint(a * b)\n", {"2 3\n": "6\n", "4 5\n": "20\n"}),
    stdio("tiles", "A floor of so many rows with so many tiles each: how many tiles?", "print(eval(input().replace(' ', '*')))\n", {"1 9\n": "9\n", "7 8\n": "56\n"}, "validation"),
]  # fmt: skip
WRONG = ("ceiling.py", "halved.py", "initials.py")
UNFAILABLE = ("caught.py", "echoed.py", "rain.py", "silence.py")


def checked(
    folder: Path, rows: list[dict[str, Any]], setting: str = "exclude", languages: tuple[str, ...] = ("py",)
) -> Found:
    files = str(write_jsonl(folder / "rows.jsonl", rows))
    splits = {row["split"] for row in rows}
    shares = {split: 1 / len(splits) for split in splits}
    config = JsonlConfig(files=(files,), languages=languages, check=setting, shares=shares)
    slice = PrepareSlice(problems=config, content={})
    return check(judging(slice, {}, folder, RUNTIME), find_problems(config))


def test_what_is_planted_is_found_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = checked(tmp_path, ROWS)
    assert found.checks == {
        "answers_run": len(ROWS),
        "wrong_answers": 3,
        "tests_tried": 12,  # all but those of sft
        "tests_that_cannot_fail": 4,
        "duplicates_by_text": 0,
        "duplicates_by_behaviour": 2,
    }
    answers = {problem.task: problem.response for problem in found.problems}
    assert answers["longest"] is not None
    assert answers["halved"] is None
    assert answers["ceiling"] is None
    assert answers["total"] is not None
    gone = {row["task"] for row in ROWS} - answers.keys()
    assert gone == {"caught", "echoed", "rain", "silence", "evens", "area"}
    assert found.left_out == {
        "an empty function passes its tests": 4,
        "is one to evaluate on, under another name": 2,
    }
    said = caplog.text
    assert "3 of 15 answers fail the tests of the same problem: " + ", ".join(WRONG) in said
    assert "4 of 12 problems have tests that an empty function passes: " + ", ".join(UNFAILABLE) in said
    assert (
        "2 pairs of tasks have answers that pass each other's tests: area = tiles, evens = without_odd"
        in said
    )


def test_count_changes_nothing_and_off_runs_nothing(tmp_path: Path) -> None:
    counted = checked(tmp_path, ROWS, "count")
    assert counted.checks["wrong_answers"] == 3
    assert (len(counted.problems), counted.left_out) == (len(ROWS), {})
    off = checked(tmp_path, ROWS, "off")
    assert (off.problems, off.checks) == (counted.problems, {})


def test_refuse_names_all_kinds(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"(?s)problems.check is refuse.*halved\.py.*rain\.py.*evens = without_odd"
    ):
        checked(tmp_path, ROWS, "refuse")
    assert checked(tmp_path, [ROWS[0], ROWS[9]], "refuse").checks["answers_run"] == 2


def test_where_no_answer_is_right_there_is_nothing_to_learn(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"none of the 2 problems of split sft has an answer that passes.*halved\.py"
    ):
        checked(tmp_path, [ROWS[1], ROWS[3], ROWS[9]])


def test_near_duplicates_that_are_trained_on_both_are_counted_and_kept(tmp_path: Path) -> None:
    rows = [row | {"split": "rl"} for row in ROWS if row["task"] in ("evens", "without_odd", "odds")]
    found = checked(tmp_path, rows)
    assert found.checks["duplicates_by_behaviour"] == 1
    assert len(found.problems) == 3


def test_duplicates_by_text_are_counted(tmp_path: Path) -> None:
    again = ROWS[7] | {"task": "evens again"}
    found = checked(tmp_path, [ROWS[7], again, ROWS[9]])
    assert (found.checks["duplicates_by_text"], found.checks["duplicates_by_behaviour"]) == (1, 0)


def test_one_to_evaluate_on_without_an_answer_is_known_by_the_others(tmp_path: Path) -> None:
    held = {key: value for key, value in ROWS[8].items() if key != "response"}
    found = checked(tmp_path, [ROWS[7], held, ROWS[9]])
    assert {problem.task for problem in found.problems} == {"without_odd", "odds"}


LOOSE = {
    "js": ("function f(x) {\n", "f(1);\n", 'if (f(1) !== 2) throw new Error("no");\n', "    return 2 * x;\n}"),
    "ts": ("function f(x: number): number {\n", "f(1);\n", 'if (f(1) !== 2) throw "no";\n', "    return 2 * x;\n}"),
    "php": ("<?php\nfunction f($x) {\n", "f(1);\n", 'if (f(1) !== 2) { throw new Exception("no"); }\n', "    return 2 * $x;\n}"),
    "sh": ("#!/bin/bash\nf() {\n", "}\nf 1\n", '}\nset -e\n[[ $(f 1) = 2 ]]\n', "    echo $((2 * $1))"),
    "cpp": ("#include <assert.h>\nint f(int x) {\n", "}\nint main() {\n}\n", "}\nint main() {\n    assert(f(1) == 2);\n}\n", "    return 2 * x;"),
    "java": ("class Problem {\n    public static int f(int x) {\n", "    }\n    public static void main(String[] args) {\n    }\n}\n",
             "    }\n    public static void main(String[] args) {\n        assert(f(1) == 2);\n    }\n}\n", "        return 2 * x;"),
    "cs": ("using System.Diagnostics;\nclass Problem {\n    public static int F(int x) {\n", "    }\n    public static void Main(string[] args) {\n    }\n}\n",
           "    }\n    public static void Main(string[] args) {\n        Debug.Assert(F(1) == 2);\n    }\n}\n", "        return 2 * x;"),
}  # fmt: skip
"""By language: a prompt, tests that cannot fail, tests that can, a right answer."""


@pytest.mark.parametrize("language", LOOSE)
def test_an_empty_function_in_other_languages(tmp_path: Path, language: str) -> None:
    assert language in EMPTY_BODIES
    with open_sandbox(RUNTIME) as box:
        missing = box.missing_tools(language)
    need(not missing, f"{language} needs {', '.join(missing)}")
    prompt, loose, strict, answer = LOOSE[language]
    rows = [
        {
            "task": task,
            "language": language,
            "prompt": prompt,
            "tests": tests,
            "split": "rl",
            "response": answer,
        }
        for task, tests in (("loose", loose), ("strict", strict))
    ]
    found = checked(tmp_path, rows, "exclude", (language,))
    assert {problem.task for problem in found.problems} == {"strict"}
    assert found.checks["wrong_answers"] == 0


def test_the_stage_says_what_it_found(tmp_path: Path) -> None:
    files = str(write_jsonl(tmp_path / "rows.jsonl", ROWS))
    config = JsonlConfig(files=(files,), languages=("py",))
    outcome = PREPARE.run(judging(PrepareSlice(problems=config, content={}), {}, tmp_path, RUNTIME))
    assert outcome.metrics["checks"]["wrong_answers"] == 3
    assert outcome.metrics["left_out"]["an empty function passes its tests"] == 4
    assert len(read_records(tmp_path / "problems.parquet", Problem)) == len(ROWS) - 6
    assert json.dumps(outcome.metrics)
