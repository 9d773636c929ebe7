"""Tests of stage `prepare`: tests and checkers that cannot work are found, and valid problems are kept."""

from dataclasses import replace
from pathlib import Path

import pytest

from selftrain.config import WRITTEN_LANGUAGES, BankConfig, ContestsConfig, RuntimeConfig
from selftrain.errors import DataError
from selftrain.problems.read import Found, find_problems, read_problems
from selftrain.records import Problem
from selftrain.stages.prepare import PrepareSlice, check_checkers, check_tests, without_doubtful, write
from tasks.sandbox import open_sandbox
from tests.contexts import judging
from tests.needs import need
from tests.selftrain.problems.made import DESCRIPTIONS, write_jsonl

RUNTIME = RuntimeConfig(backend="process", workers=2)
ONE_EACH = {"sft": 1, "rl": 1, "validation": 1, "test": 1}


def check(problems: list[Problem]) -> None:
    check_tests(judging({}, {}, Path(), RUNTIME), problems)


@pytest.fixture(scope="module")
def problems() -> dict[str, Problem]:
    """One problem of the bank in every language."""
    found = read_problems(BankConfig(languages=WRITTEN_LANGUAGES, sizes=ONE_EACH))
    return {problem.language: problem for problem in found if problem.split == "test"}


@pytest.mark.parametrize("language", WRITTEN_LANGUAGES)
def test_good_tests_get_through_and_broken_ones_are_named(
    problems: dict[str, Problem], language: str
) -> None:
    with open_sandbox(RUNTIME) as box:
        missing = box.missing_tools(language)
    need(not missing, f"{language} needs {', '.join(missing)}")
    good = problems[language]
    check([good])
    broken = replace(good, tests=good.tests + "\nif ((", source="mine.jsonl")
    with pytest.raises(DataError, match=r"the tests of 1 of 2 problems cannot run") as raised:
        check([good, replace(broken, id="broken")])
    assert "broken (mine.jsonl): " in str(raised.value)
    assert good.id not in str(raised.value)


def test_only_some_of_many_are_named(problems: dict[str, Problem]) -> None:
    broken = [replace(problems["py"], id=f"p{at}", tests="assert (") for at in range(7)]
    with pytest.raises(DataError, match=r"p4 (?s:.*)and 2 more$"):
        check(broken)


@pytest.mark.parametrize(
    ("language", "tests"),
    [("py", "import no_such_module\n"), ("js", 'const x = require("no-such-module");\n')],
)
def test_a_module_that_is_not_there_is_told(problems: dict[str, Problem], language: str, tests: str) -> None:
    with open_sandbox(RUNTIME) as box:
        missing = box.missing_tools(language)
    need(not missing, f"{language} needs {', '.join(missing)}")
    with pytest.raises(DataError, match="cannot run"):
        check([replace(problems[language], tests=tests)])


def test_tests_that_fail_at_run_time_are_the_candidates_matter(problems: dict[str, Problem]) -> None:
    check([replace(problems["py"], tests="assert undefined(1) == 2\n")])


def test_what_is_only_learnt_from_needs_no_tests_that_run(problems: dict[str, Problem]) -> None:
    check([replace(problems["py"], tests="assert (", split="sft")])


SLOPPY = "print('accept' if int(open('got').read()) > int(open('input').read()) else 'reject')"
SOUND = f"try:\n    {SLOPPY}\nexcept ValueError:\n    print('reject')"


def test_a_checker_that_fails_on_what_makes_no_sense_is_told(problems: dict[str, Problem]) -> None:
    cases = ({"stdin": "1\n", "stdout": "it's 2\n"},)
    context = judging({}, {}, Path(), RUNTIME)
    checkers = {"sound": SOUND, "sloppy": SLOPPY, "broken": "1 / 0", "learnt": "1 / 0"}
    several = [
        replace(
            problems["py"], id=name, tests="", cases=cases, checker={"language": "py", "program": source},
            split="sft" if name == "learnt" else "rl",
        )
        for name, source in checkers.items()
    ]  # fmt: skip
    check_checkers(context, [*several[:1], *several[3:], problems["py"]])
    with pytest.raises(DataError, match=r"the checkers of 2 problems fail on") as raised:
        check_checkers(context, several)
    assert "\n  broken: the checker (py) failed" in str(raised.value)
    assert "ZeroDivisionError" in str(raised.value)
    assert "\n  sloppy: the checker (py) failed" in str(raised.value)


# Problems with many right answers, told by solutions that the data set holds to be right


def prepared(folder: Path, rows: list[dict], **more: object) -> Found:
    """What is kept of contest problems to evaluate on."""
    fields = {"evaluation": str(write_jsonl(folder / "rows.jsonl", rows)), "languages": ["py", "sh"]}
    config = ContestsConfig.model_validate(fields | more)
    return without_doubtful(judging({}, {}, folder, RUNTIME), find_problems(config))


def contest(at: int, cases: dict[str, str], *solutions: str) -> dict:
    return {
        "name": f"P{at}",
        "description": DESCRIPTIONS[at],
        "public_tests": {"input": list(cases), "output": list(cases.values())},
        "solutions": {"language": [3] * len(solutions), "solution": list(solutions)},
    }


SUMS = {"5\n": "2 3\n", "6\n": "2 4\n"}
FIRST, OTHER = "n = int(input()); print(2, n - 2)", "n = int(input()); print(n - 1, 1)"
CONTESTS = [
    contest(0, SUMS, FIRST, FIRST + "  # the same"),
    contest(1, SUMS, FIRST, OTHER),
    contest(2, SUMS, OTHER, "print(input(), 0)"),
    contest(3, {"1 2\n": "1.5000 Yes"}, "a, b = map(int, input().split()); print((a + b) / 2, 'YES')", "print('1.50000001\\nyes')"),
    contest(4, SUMS, FIRST, "1 / 0"),
    contest(5, {"1\n": "2\n"}, "print(3)", "print(3.0)"),
    contest(6, SUMS, OTHER),
    contest(7, SUMS),
]  # fmt: skip


def test_problems_with_many_right_answers_are_left_out_and_counted(tmp_path: Path) -> None:
    """P1: one solution passes, the other does not; P2: both print something else, and not the same; P5: both the same other
    thing, P6 the only one. What crashes beside one that passes (P4) proves nothing."""
    found = prepared(tmp_path, CONTESTS)
    assert {p.id for p in found.problems} == {
        f"P{at}.{language}" for at in (0, 3, 4, 7) for language in ("py", "sh")
    }
    assert found.left_out == {"has many right answers": 2, "none of its right programs passes": 2}


def test_where_none_are_run_none_are_left_out(tmp_path: Path) -> None:
    found = prepared(tmp_path, CONTESTS[:3], references=0)
    assert (len(found.problems), found.left_out) == (6, {})


@pytest.mark.parametrize("dropped", ["sft", "rl"])
def test_a_run_without_sft_needs_no_problems_for_it(tmp_path: Path, dropped: str) -> None:
    """Every other split needs problems."""
    shares = {"sft": 0.25, "rl": 0.25, "validation": 0.25, "test": 0.25}
    kept = {split: 1 for split in shares if split != dropped}
    bank = BankConfig(sizes=kept, shares=dict.fromkeys(kept, 1 / 3))
    config = PrepareSlice(problems=bank, content={})
    context = judging(config, {}, tmp_path, RUNTIME)
    found = find_problems(bank)
    if dropped == "sft":
        assert write(context, found).metrics["problems"] == {"sft": 0, "rl": 2, "validation": 2, "test": 2}
    else:
        with pytest.raises(DataError, match="no problem in splits rl; they need some"):
            write(context, found)


def test_what_is_only_learnt_from_is_not_tried(tmp_path: Path) -> None:
    train = str(write_jsonl(tmp_path / "train.jsonl", CONTESTS[1:3]))
    found = prepared(tmp_path, CONTESTS[:1], train=train, shares={"sft": 1.0})
    assert {p.task for p in found.problems} == {"P0", "P1", "P2"}
