"""What a file of problems does not say of itself: answers that fail their own tests, tests that an empty function passes,
and one problem under two names. `selftrain.stages.prepare_checks` runs the programs; what is to be run, and what it means, is here.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from sandbox.compare import same
from selftrain.errors import DataError
from selftrain.problems.leaks import function_of, same_problem
from selftrain.problems.read import Found
from selftrain.records import Problem

UNFAILABLE = "an empty function passes its tests"
TWIN = "is one to evaluate on, under another name"
"""Why a task is left out."""

TWIN_RUNS = 2000
"""About so many programs are run to find twins, but at least those of each problem's `NEAREST` nearest ones."""
NEAREST = 4
ALL_COMPARED, RARE = 1500, 30
"""In a larger group only problems are compared that share a word that so many of them have at most."""

_CHEAPEST = ("py", "js", "sh", "php", "lua", "rb", "pl")
"""Languages in which a task's twins are looked for first; one language a task is enough."""
_EVALUATED = ("sft", "rl", "validation", "test")
"""The splits, those that must not be known from the ones before them last."""
_SHOWN = 5


@dataclass(frozen=True)
class Findings:
    """What was found.

    answers       ids of problems whose answer was run on their own tests
    wrong         those of them whose answer fails
    tried         ids of problems on whose tests an empty function was tried
    unfailable    those of them that it passes
    text_twins    pairs of tasks that have one text, or the same tests
    twins         pairs of tasks, each answer of which passes the tests of the other; where one has no answer, the other's does
    """

    answers: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    tried: tuple[str, ...] = ()
    unfailable: tuple[str, ...] = ()
    text_twins: tuple[tuple[str, str], ...] = ()
    twins: tuple[tuple[str, str], ...] = ()

    def counts(self) -> dict[str, int]:
        """The figures of the stage's table."""
        return {
            "answers_run": len(self.answers),
            "wrong_answers": len(self.wrong),
            "tests_tried": len(self.tried),
            "tests_that_cannot_fail": len(self.unfailable),
            "twins_by_text": len(self.text_twins),
            "twins_by_behaviour": len(self.twins),
        }

    def lines(self) -> list[str]:
        """A line for each kind of finding that there is."""
        twins = [" = ".join(pair) for pair in self.twins]
        kinds = (
            (self.wrong, f"of {len(self.answers)} answers fail the tests of their own problem"),
            (self.unfailable, f"of {len(self.tried)} problems have tests that an empty function passes"),
            (
                [" = ".join(pair) for pair in self.text_twins],
                "pairs of tasks have one text or the same tests",
            ),
            (twins, "pairs of tasks have answers that pass each other's tests"),
        )
        return [f"{len(names)} {what}: {_named(names)}" for names, what in kinds if names]


def text_twins(problems: Sequence[Problem]) -> tuple[tuple[str, str], ...]:
    """Pairs of tasks that are one by what is written in them; the first of a group with each of the others."""
    return tuple(sorted((first, task) for task, first in same_problem(problems).items() if task != first))


def cannot_fail(problem: Problem) -> bool:
    """Whether a program that prints nothing passes, so far as that is known without running one."""
    return (
        bool(problem.cases)
        and not problem.checker
        and all(same(problem.compare, b"", case["stdout"]) for case in problem.cases)
    )


def on_tests_of(problem: Problem, other: Problem, text: str) -> tuple[Problem, str]:
    """What to run for the answer `text` of `problem` on the tests of `other`: a problem and its completion. The function is
    called as the tests of `other` call it."""
    prompt = problem.prompt
    name, wanted = function_of(problem), function_of(other)
    if other.tests and name and wanted:
        prompt, text = (re.sub(rf"\b{re.escape(name)}\b", wanted, part) for part in (prompt, text))
    return replace(other, prompt=prompt, example_tests=""), text


def neighbours(
    problems: Sequence[Problem], references: Mapping[str, tuple[str, ...]]
) -> Iterator[tuple[Problem, Problem]]:
    """Pairs of problems of one language and kind that might be the same under two names, nearest first for each: by the
    words of prompts, tests and answers, rare ones counting for more. At least one of a pair has an answer."""
    known = set(text_twins(problems))
    for group in _groups(problems, references):
        words = {p.id: _words(p, references) for p in group}
        spread = Counter(word for of_one in words.values() for word in of_one)
        weight = {word: math.log(1 + len(group) / count) for word, count in spread.items()}
        size = {id: math.sqrt(sum(weight[word] for word in of_one)) or 1.0 for id, of_one in words.items()}
        scores: dict[str, list[tuple[float, int, int]]] = defaultdict(list)
        for i, j in _pairs(words, spread):
            one, other = group[i], group[j]
            pair = sorted((one.task, other.task))
            if one.task == other.task or (pair[0], pair[1]) in known:
                continue
            if not (references.get(one.id) or references.get(other.id)):
                continue
            shared = sum(weight[word] for word in words[one.id] & words[other.id])
            near = shared / (size[one.id] * size[other.id])
            scores[one.id].append((-near, i, j))
            scores[other.id].append((-near, i, j))
        most = max(NEAREST, TWIN_RUNS // (2 * len(group)))
        chosen = {(i, j) for of_one in scores.values() for _, i, j in sorted(of_one)[:most]}
        for i, j in sorted(chosen):
            yield group[i], group[j]


def overview(found: Found) -> list[str]:
    """What can be told of a source without running anything, line by line."""
    problems = found.problems
    tasks = {split: {p.task for p in problems if p.split == split} for split in _EVALUATED}
    learnt = [problem for problem in problems if problem.split == "sft"]
    answered = sum(problem.response is not None for problem in learnt)
    lines = [
        "tasks: " + ", ".join(f"{split} {len(names)}" for split, names in tasks.items()),
        f"answers to learn from: {answered} of {len(learnt)} problems in sft",
        "no problem to evaluate on is, by its text or tests, one to train on",
    ]
    if found.left_out:
        lines.append(f"left out: {found.told}")
    unfailable = tuple(p.id for p in problems if cannot_fail(p))
    lines += Findings(
        tried=tuple(p.id for p in problems if p.cases), unfailable=unfailable, text_twins=text_twins(problems)
    ).lines()
    return lines


def act(found: Found, findings: Findings, setting: str) -> Found:
    """`found` after `setting` (`selftrain.config.OutsideConfig.check`) was applied, with its figures. Raises `DataError`
    where it says refuse and there is something, and where nothing is left to learn from."""
    lines = findings.lines()
    if setting == "refuse" and lines:
        raise DataError(
            "problems.check is refuse, and\n"
            + "".join(f"  {line}\n" for line in lines)
            + "mend them, leave their tasks out with problems.exclude, or set problems.check to exclude or count"
        )
    found = replace(found, checks=findings.counts())
    if setting != "exclude":
        return found
    return _without(found, findings)


def _without(found: Found, findings: Findings) -> Found:
    wrong, unfailable = set(findings.wrong), set(findings.unfailable)
    twins = set(_used_before(found.problems, findings.twins))
    dropped = {p.task: UNFAILABLE for p in found.problems if p.id in unfailable} | dict.fromkeys(twins, TWIN)
    kept = [
        replace(problem, response=None) if problem.id in wrong else problem
        for problem in found.problems
        if problem.id not in unfailable and problem.task not in twins
    ]
    learnt = [problem for problem in kept if problem.split == "sft"]
    if learnt and not any(problem.response for problem in learnt):
        raise DataError(
            f"none of the {len(learnt)} problems of split sft has an answer that passes its own tests: "
            f"{_named([p.id for p in learnt])}; mend them, or set problems.check to count to learn from them all the same"
        )
    return replace(found, problems=kept, left_out=found.left_out + Counter(dropped.values()))


def _used_before(problems: Sequence[Problem], twins: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Of each two tasks that are one, the one in a split that is used before the other's is evaluated on."""
    splits = {problem.task: problem.split for problem in problems}
    for pair in twins:
        first, last = sorted(pair, key=lambda task: _EVALUATED.index(splits[task]))
        if splits[last] in ("validation", "test") and splits[first] != splits[last]:
            yield first


def _groups(
    problems: Sequence[Problem], references: Mapping[str, tuple[str, ...]]
) -> Iterator[list[Problem]]:
    """The problems among which twins are looked for: of one kind and language, each task in one language if it has an
    answer there."""
    by_task: dict[str, list[Problem]] = defaultdict(list)
    for problem in problems:
        by_task[problem.task].append(problem)
    order = {language: at for at, language in enumerate(_CHEAPEST)}
    languages = {
        min((order.get(p.language, len(order)), p.language) for p in several if references.get(p.id))[1]
        for several in by_task.values()
        if any(references.get(p.id) for p in several)
    }
    for language in sorted(languages):
        for kind in ("program", "stdio"):
            group = [p for p in problems if p.language == language and p.kind == kind]
            if len(group) > 1:
                yield group


def _pairs(words: Mapping[str, frozenset[str]], spread: Mapping[str, int]) -> Iterable[tuple[int, int]]:
    """Which to compare: all, or, where there are too many, those that share a rare word."""
    if len(words) <= ALL_COMPARED:
        return combinations(range(len(words)), 2)
    holders: dict[str, list[int]] = defaultdict(list)
    for at, of_one in enumerate(words.values()):
        for word in of_one:
            if spread[word] <= RARE:
                holders[word].append(at)
    return sorted({pair for several in holders.values() for pair in combinations(several, 2)})


def _words(problem: Problem, references: Mapping[str, tuple[str, ...]]) -> frozenset[str]:
    cases = " ".join(text for case in problem.cases for text in case.values())
    text = " ".join((problem.prompt, problem.tests, cases, *references.get(problem.id, ())))
    return frozenset(word.lower() for word in re.findall(r"\d+|[A-Za-z][a-z]*|[%*/^&|<>+-]", text))


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
