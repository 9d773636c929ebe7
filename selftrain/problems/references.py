"""Judges a problem's tests by the results of reference programs, which its source holds to be right."""

from collections.abc import Sequence

from sandbox.compare import same
from sandbox.verdicts import Result, Verdict

MANY_ANSWERS = "has many right answers"
NONE_PASSES = "none of its right programs passes"


def doubt(results: Sequence[Result], rule: str) -> str:
    """Why a problem's tests cannot be trusted; empty where they can, or where nothing is known.

    results  of its reference programs on these tests
    rule     how their output was compared

    `MANY_ANSWERS`: two programs disagree, since one passes and another prints something else, or since both print something
    unexpected and their outputs differ. `NONE_PASSES`: no program passes, for any other reason. A program that fails for
    another reason than its output, such as a time limit, is ignored if one passes.
    """
    known = [result for result in results if result.verdict.is_label]
    if not any(result.verdict is Verdict.passed for result in known):
        printed = [result.stdout for result in known if result.verdict is Verdict.wrong_answer]
        differ = any(not same(rule, text.encode(), printed[0]) for text in printed)
        return MANY_ANSWERS if differ else NONE_PASSES if known else ""
    wrong = any(result.verdict is Verdict.wrong_answer for result in known)
    return MANY_ANSWERS if wrong else ""
