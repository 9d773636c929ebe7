"""Tests of the table of tricks: with an audit, only the tricks that docs/sandbox.md names are labelled `passed`."""

import pytest

from sandbox.client import Sandbox
from sandbox.programs import assemble
from sandbox.shapes import SHAPES
from sandbox.verdicts import Verdict
from tests.command import ROOT
from tests.sandbox.test_sandbox_twin import OF_BACKENDS, need_language
from tests.sandbox.tricks import ASSERTIONS, LIMITS, TRICKS, VALUES, all_programs, suite_of

FEWEST = 60


def test_the_table_is_large_and_its_names_are_unique() -> None:
    assert len({trick.name for trick in TRICKS}) == len(TRICKS) >= FEWEST


def test_tricks_that_pass_are_documented() -> None:
    text = (ROOT / "docs" / "sandbox.md").read_text()
    assert [trick.name for trick in TRICKS if trick.passes_because and trick.name not in text] == []


@pytest.mark.parametrize("name", ASSERTIONS)
def test_the_tests_have_an_assertion_for_each_value(name: str) -> None:
    text = suite_of(name)
    for value in VALUES:
        assert text.count(ASSERTIONS[name].format(*value)) == 1


@pytest.mark.parametrize(("sandbox", "name"), OF_BACKENDS, indirect=["sandbox"])
def test_no_trick_is_labelled_passed(sandbox: Sandbox, name: str) -> None:
    need_language(sandbox, name)
    programs, expected = [], set()
    for trick, language, program in all_programs([name]):
        if sandbox.backend != "process" or not trick.needs_traces:
            programs.append(program)
            expected |= {f"{language}: {trick.name}"} if trick.passes_because else set()
    results = list(sandbox.run(programs))
    assert {result.id for result in results if result.verdict is Verdict.passed} == expected
    assert [result.id for result in results if not result.verdict.is_label] == []


@pytest.mark.parametrize(("sandbox", "name"), OF_BACKENDS, indirect=["sandbox"])
def test_these_tests_tell_right_from_wrong(sandbox: Sandbox, name: str) -> None:
    """Without a trick, the wrong `f` of the table fails and a right one passes its audit."""
    need_language(sandbox, name)
    shape = SHAPES[name]
    programs = [
        assemble(name, shape.prompt, completion, suite_of(name)).program(completion, name, LIMITS, audit=True)
        for completion in (shape.passed, shape.wrong_answer)
    ]
    verdicts = {result.id: result.verdict for result in sandbox.run(programs)}
    assert verdicts == {shape.passed: Verdict.passed, shape.wrong_answer: Verdict.wrong_answer}
