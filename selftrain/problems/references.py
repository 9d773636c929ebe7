"""Decides from the results of reference programs whether a problem's tests can be trusted."""

from collections.abc import Sequence

from sandbox.compare import same
from sandbox.verdicts import Result, Verdict

MANY_ANSWERS = "has many right answers"
NONE_PASSES = "none of its right programs passes"


def doubt(results: Sequence[Result], rule: str) -> str:
    """Why a problem's tests cannot be trusted; empty where they can, or where nothing is known.

    results  of the problem's reference programs (right, according to its source) on these tests
    rule     the rule by which the sandbox compared outputs

    `MANY_ANSWERS`: one program passes and another prints a wrong answer, or none passes and two wrong answers differ.
    `NONE_PASSES`: no program passes, in all other cases. If one program passes, failures without a wrong answer, such as time
    limits, are ignored. Results that are no labels (the sandbox failed) are always ignored.
    """
    known = [result for result in results if result.verdict.is_label]
    if not any(result.verdict is Verdict.passed for result in known):
        printed = [result.stdout for result in known if result.verdict is Verdict.wrong_answer]
        differ = any(not same(rule, text.encode(), printed[0]) for text in printed)
        return MANY_ANSWERS if differ else NONE_PASSES if known else ""
    wrong = any(result.verdict is Verdict.wrong_answer for result in known)
    return MANY_ANSWERS if wrong else ""
