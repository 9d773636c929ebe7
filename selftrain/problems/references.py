"""What programs that a source holds to be right say of its tests, once they were run on them."""

from collections.abc import Sequence

from sandbox.compare import same
from sandbox.verdicts import Result, Verdict

MANY_ANSWERS = "has many right answers"
NONE_PASSES = "none of its right programs passes"


def doubt(results: Sequence[Result], rule: str) -> str:
    """Why a problem's tests cannot be trusted; empty where they can, or nothing is known.

    `results`: of programs that the source holds to be right, on the same tests; `rule`: how their output was compared.
    `MANY_ANSWERS` where two of them disagree: one passes and another prints something else, or both print something else
    than expected, and not the same. `NONE_PASSES` where they are all wrong in another way. One that fails in another way
    than by its output (too slow, say) says nothing where one passes.
    """
    known = [result for result in results if result.verdict.is_label]
    if not any(result.verdict is Verdict.passed for result in known):
        printed = [result.stdout for result in known if result.verdict is Verdict.wrong_answer]
        differ = any(not same(rule, text.encode(), printed[0]) for text in printed)
        return MANY_ANSWERS if differ else NONE_PASSES if known else ""
    wrong = any(result.verdict is Verdict.wrong_answer for result in known)
    return MANY_ANSWERS if wrong else ""
