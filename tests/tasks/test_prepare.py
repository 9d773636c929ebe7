"""Tests that the language itself refuses are found before anything is trained; all others get through."""

from dataclasses import replace
from pathlib import Path

import pytest

from selftrain.config import LANGUAGES, BankConfig, RuntimeConfig
from selftrain.errors import DataError
from selftrain.problems import read_problems
from selftrain.records import Problem
from selftrain.stage import Build
from tasks.execute import open_sandbox
from tasks.prepare import check_tests
from tests.needs import need

RUNTIME = RuntimeConfig(backend="process", workers=2)
ONE_EACH = {"sft": 1, "rl": 1, "validation": 1, "test": 1}


def check(problems: list[Problem]) -> None:
    check_tests(Build({}, {}, Path(), RUNTIME, lambda *_: None), problems)


@pytest.fixture(scope="module")
def problems() -> dict[str, Problem]:
    """One problem of the bank in every language."""
    found = read_problems(BankConfig(languages=LANGUAGES, sizes=ONE_EACH))
    return {problem.language: problem for problem in found if problem.split == "test"}


@pytest.mark.parametrize("language", LANGUAGES)
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
