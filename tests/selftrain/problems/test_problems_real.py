"""Tests with real MultiPL-E problems, if the environment variable MULTIPL_E_DIR names a folder that contains them.

The folder contains `humaneval-LANG.jsonl`, and `mbpp-LANG.jsonl` with answers, for the paper's eight languages.
"""

import os
from collections import Counter
from pathlib import Path

import pytest

from sandbox.client import Sandbox
from sandbox.programs import assemble
from sandbox.verdicts import Verdict
from selftrain.config import WRITTEN_LANGUAGES, MultiPLEConfig
from selftrain.problems.read import read_problems
from selftrain.records import Problem
from tests.needs import need


@pytest.fixture(scope="module")
def problems() -> list[Problem]:
    folder = Path(os.environ.get("MULTIPL_E_DIR", ""))
    need(
        "MULTIPL_E_DIR" in os.environ and folder.is_dir(),
        "MULTIPL_E_DIR names no folder with MultiPL-E's problems",
    )
    return read_problems(
        MultiPLEConfig(train=(f"{folder}/mbpp-*.jsonl",), evaluation=(f"{folder}/humaneval-*.jsonl",))
    )


def test_all_are_read_and_no_leak_is_reported(problems: list[Problem]) -> None:
    test = [p for p in problems if p.split == "test"]
    assert (len(test), len(problems) - len(test)) == (1280, 3121)
    assert all(p.source.startswith("humaneval-") == (p.split == "test") for p in problems)
    humaneval = {"py": 164, "cpp": 161, "java": 158, "php": 161, "ts": 159, "cs": 158, "sh": 158, "js": 161}
    assert Counter(p.language for p in test) == humaneval


def test_the_splits_are_disjoint_by_task(problems: list[Problem]) -> None:
    splits: dict[str, set[str]] = {}
    for p in problems:
        splits.setdefault(p.task, set()).add(p.split)
    assert all(len(found) == 1 for found in splits.values())
    assert {split for found in splits.values() for split in found} == {"sft", "rl", "validation", "test"}


def test_most_answers_hold_a_completion(problems: list[Problem]) -> None:
    for language in WRITTEN_LANGUAGES:
        learnt = [p for p in problems if p.split == "sft" and p.language == language]
        assert sum(p.response is not None for p in learnt) > 0.85 * len(learnt)


def test_python_answers_pass_their_tests(problems: list[Problem]) -> None:
    """They are bodies of reference solutions, so a wrong one is a wrong extraction."""
    learnt = [p for p in problems if p.split == "sft" and p.language == "py"][::8]
    programs = []
    for p in learnt:
        assert p.response is not None
        programs.append(assemble("py", p.prompt, p.response, p.tests).program(p.id, "py"))
    with Sandbox("process") as sandbox:
        failed = [result.id for result in sandbox.run(programs) if result.verdict is not Verdict.passed]
    assert len(programs) > 15
    assert not failed


def test_examples_come_from_the_prompt(problems: list[Problem]) -> None:
    with_examples = [p for p in problems if p.example_tests]
    assert all(p.source.startswith("humaneval-") for p in with_examples)
    read = {"py": 138, "cpp": 156, "java": 153, "php": 157, "ts": 155, "cs": 153, "sh": 154, "js": 157}
    assert Counter(p.language for p in with_examples) == read
    one = next(p for p in problems if p.id == "HumanEval_3_below_zero.py")
    assert (
        one.example_tests
        == "\nassert below_zero([1, 2, 3]) == False\nassert below_zero([1, 2, -4, 5]) == True\n"
    )
    assert "candidate([1, 2, 3]),false" in next(
        p.example_tests for p in problems if p.id == "HumanEval_3_below_zero.js"
    )
