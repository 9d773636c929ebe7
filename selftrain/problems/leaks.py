"""Finds duplicate problems under different names, and evaluation problems that are in the training data.

Two problems are the same if they share a *fingerprint* of one of three kinds:

    task    the task's name, with differences in spelling removed: `HumanEval/11` and `HumanEval_11_string_xor` are equal
    text    the description in the prompt's comments before the first example, in lower case, without punctuation, the
            function's name, articles, and words that MultiPL-E changes from language to language (list, vector, ...);
            the whole prompt where it has no comments
    tests   the test program of one language, without white space and with the function's name replaced by `f`; or the inputs
            and outputs of the test cases

Not covered: a problem that was reworded and also has different tests.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

from sandbox.completion import asked_function
from selftrain.errors import DataError
from selftrain.records import Problem
from selftrain.units import count_of

Fingerprint = tuple[str, str]
"""A fingerprint: its kind (task, text or tests) and its text."""

_SHOWN = 5  # number of leaks that a message lists
_LEAKS = (
    ("test", "sft"),
    ("test", "rl"),
    ("test", "validation"),
    ("validation", "sft"),
    ("validation", "rl"),
)
"""Pairs of splits, of which the first must hold no problem of the second."""

_ORIGINS = re.compile(r"(human_?eval|mbpp)\D{0,16}(\d+)")
_COMMENT = re.compile(
    r'("""|\'\'\')(?P<doc>.*?)\1|/\*(?P<c>.*?)\*/|\(\*(?P<ml>.*?)\*\)|^[ \t]*(?://+|#(?!include|!|lang)|--|;+)(?P<line>[^\n]*)',
    re.DOTALL | re.MULTILINE,
)
_CHANGING = re.compile(
    r"\b(?:\w{2,4}thon|python|javascript|typescript|php|java|c\+\+|cpp|c#|bash|shell"
    r"|(sub)?(?:array ?list|array|list|vector|csv)(?: list)?s?|tuples?|pairs?|triplets?|associative|sets?"
    r"|dictionar(?:y|ies)|hash ?maps?|hash ?tables?|maps?|objects?|null|none|nil|undefined|std::\w+|an?|the)(?!\w)"
)
# Shorter texts and tests are too common to identify a problem. Units: words, words, cases, characters.
_FEWEST_WORDS = 4
_FEWEST_WORDS_OF_CODE = 12
_FEWEST_CASES = 3
_SHORTEST_TESTS = 40


def function_of(problem: Problem) -> str | None:
    """The name of the function that the prompt asks for; None where it asks for a program."""
    return asked_function(problem.prompt, problem.language)


def fingerprints(problem: Problem) -> Iterator[Fingerprint]:
    """The fingerprints of `problem`; kinds whose text would be too short to identify it are left out."""
    yield "task", _folded_task(problem.task)
    function = function_of(problem)
    name = rf"\b{re.escape(function)}\b" if function else r"(?!)"
    comments = _description(problem.prompt)
    # A name such as `maximum` may also be an ordinary word of the description: remove it only where `(` follows.
    word = function is not None and function.isalpha() and function.islower()
    words = _words(re.sub(name + r"(?=\()" if word else name, " ", comments or problem.prompt))
    if len(words) >= (_FEWEST_WORDS if comments else _FEWEST_WORDS_OF_CODE):
        yield "text", " ".join(words)
    if len(problem.cases) >= _FEWEST_CASES:
        yield "tests", json.dumps(problem.cases)
    tests = "".join(re.sub(name, "f", problem.tests).split())
    if len(tests) >= _SHORTEST_TESTS:
        yield "tests", f"{problem.language} {tests}"


def same_problem(problems: Sequence[Problem]) -> dict[str, str]:
    """Task -> the alphabetically first task that is the same problem; the task itself if it has no duplicate before it."""
    first: dict[str, str] = {}

    def find(task: str) -> str:
        while first[task] != task:
            first[task] = first[first[task]]
            task = first[task]
        return task

    holder: dict[Fingerprint, str] = {}
    for problem in problems:
        first.setdefault(problem.task, problem.task)
        for fingerprint in fingerprints(problem):
            one, other = sorted((find(problem.task), find(holder.setdefault(fingerprint, problem.task))))
            first[other] = one
    return {task: find(task) for task in first}


def check_leaks(problems: Sequence[Problem]) -> None:
    """Raise `DataError` if a problem of split test or validation is, in any language, also in an earlier split.

    Earlier splits are sft, rl and, for test, validation. Also raises if one task name is both in sft and in rl.
    """
    leaks = find_leaks(problems)
    if leaks:
        shown = "".join(
            f"\n  {_named(one)} has the {kind} of {_named(other)}" for one, other, kind in leaks[:_SHOWN]
        )
        more = f"\n  and {len(leaks) - _SHOWN} more" if len(leaks) > _SHOWN else ""
        names = ", ".join(sorted({other.task for _, other, _ in leaks})[:_SHOWN])
        raise DataError(
            f"{count_of(len(leaks), 'task')} would be evaluated on after training on them:{shown}{more}\n"
            f"take them out of the training problems, or name them in `problems.exclude`: [{names}{', ...' if more else ''}]"
        )


def find_leaks(problems: Sequence[Problem]) -> list[tuple[Problem, Problem, str]]:
    """The leaks for which `check_leaks` raises, once for each pair of tasks: the problem that is held out, the one in an earlier
    split, and the kind of fingerprint that they share."""
    holders: dict[Fingerprint, dict[str, Problem]] = defaultdict(dict)
    for problem in problems:
        for fingerprint in fingerprints(problem):
            holders[fingerprint].setdefault(problem.split, problem)
    leaks: dict[tuple[str, str], tuple[Problem, Problem, str]] = {}
    for (kind, _), by_split in sorted(holders.items()):
        for held, split in (*_LEAKS, ("rl", "sft")) if kind == "task" else _LEAKS:
            if held in by_split and split in by_split:
                one, other = by_split[held], by_split[split]
                leaks.setdefault((one.task, other.task), (one, other, kind))
    return list(leaks.values())


def _named(problem: Problem) -> str:
    return f"{problem.id} ({problem.split}, {problem.source})"


def _folded_task(task: str) -> str:
    origin = _ORIGINS.match(task.lower())
    if origin:
        return f"{origin.group(1).replace('_', '')} {origin.group(2)}"
    return " ".join(re.findall(r"[^\W_]+", task.lower()))


def _description(prompt: str) -> str:
    """The text of the comments in `prompt` up to the first `>>>` example."""
    lines: list[str] = []
    for comment in _COMMENT.finditer(prompt):
        text = next(text for text in comment.group("doc", "c", "ml", "line") if text is not None)
        for line in text.split("\n"):
            if line.strip().startswith(">>>"):
                return "\n".join(lines)
            # Not MultiPL-E's comment about an argument of a shell function.
            if not re.match(r"\s*\$\d+ is ", line):
                lines.append(line)
    return "\n".join(lines)


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", _CHANGING.sub(r" \1 ", " ".join(text.lower().split())))
