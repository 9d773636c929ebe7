"""Tests of judging a problem's tests by the results of its reference programs."""

import pytest

from sandbox.verdicts import Result, Verdict
from selftrain.problems.references import doubt

MANY, NONE = "has many right answers", "none of its right programs passes"
RIGHT, SLOW, CRASH = (
    Result("", verdict) for verdict in (Verdict.passed, Verdict.timeout, Verdict.runtime_error)
)
FAILED = Result("", Verdict.sandbox_error)


def other(text: str) -> Result:
    return Result("", Verdict.wrong_answer, stdout=text)


@pytest.mark.parametrize(
    ("results", "reason"),
    [
        ([], ""),
        ([FAILED, FAILED], ""),
        ([RIGHT], ""),
        ([RIGHT, RIGHT, RIGHT], ""),
        ([RIGHT, SLOW, CRASH], ""),
        ([FAILED, RIGHT], ""),
        ([RIGHT, other("2 3")], MANY),
        ([SLOW, other("2 3"), RIGHT], MANY),
        ([other("2 3"), other("1 4")], MANY),
        ([other("0.5"), CRASH, other("0.7")], MANY),
        ([other("2 3"), other("2  3\n")], NONE),
        ([other("0.5 YES"), other("0.50 yes")], NONE),
        ([other("7")], NONE),
        ([other("7"), FAILED], NONE),
        ([SLOW, CRASH], NONE),
        ([CRASH], NONE),
    ],
)
def test_doubts(results: list[Result], reason: str) -> None:
    assert doubt(results, "code-contests") == reason


def test_what_is_the_same_is_told_by_the_problems_rule() -> None:
    assert doubt([other("2 3"), other("2\n3")], "lines") == MANY
    assert doubt([other("2 3"), other("2 3 ")], "lines") == NONE
