"""Finds faulty problems: answers that fail their tests, tests that an empty function passes, and duplicate problems.

A pair of *near-duplicates* is one problem under two names. This module chooses the programs to run and interprets their results;
`selftrain.stages.prepare_checks` runs them.
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
from selftrain.units import count_of, listed, none_of

# Reasons for leaving a task out.
UNFAILABLE = "an empty function passes its tests"
DUPLICATE = "is one to evaluate on, under another name"

DUPLICATE_RUNS = 2000
"""Approximate number of programs run to find duplicates, per group of problems; more if `NEAREST` requires more."""
NEAREST = 4
"""Every problem is compared with at least this many of its most similar problems."""
ALL_COMPARED, RARE = 1500, 30
"""In a group of more than ALL_COMPARED problems, two are compared only if they share a word that at most RARE problems have."""

_CHEAPEST = ("py", "js", "sh", "php", "lua", "rb", "pl")
"""Preferred languages for the search for duplicates, best first. A task is searched in the first in which it has an answer."""
_EVALUATED = ("sft", "rl", "validation", "test")
"""The splits in the order of their use. No problem of one of the last two may also be in an earlier split."""


@dataclass(frozen=True)
class Findings:
    """The results of the checks.

    answers          ids of problems whose answer was run on their own tests
    wrong            ids of the problems in `answers` whose answer fails
    tried            ids of problems whose tests were run with an empty function
    unfailable       ids of the problems in `tried` whose tests the empty function passes
    text_duplicates  pairs of tasks with the same text or tests
    duplicates       pairs of tasks whose answers pass each other's tests; if only one task has an answer, that answer passes
                     the other task's tests
    """

    answers: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    tried: tuple[str, ...] = ()
    unfailable: tuple[str, ...] = ()
    text_duplicates: tuple[tuple[str, str], ...] = ()
    duplicates: tuple[tuple[str, str], ...] = ()

    def counts(self) -> dict[str, int]:
        """The number of findings of each kind, for the stage's metrics."""
        return {
            "answers_run": len(self.answers),
            "wrong_answers": len(self.wrong),
            "tests_tried": len(self.tried),
            "tests_that_cannot_fail": len(self.unfailable),
            "duplicates_by_text": len(self.text_duplicates),
            "duplicates_by_behaviour": len(self.duplicates),
        }

    def lines(self) -> list[str]:
        """One line of text for each kind of which there are findings."""
        duplicates, text_duplicates = (
            [" = ".join(pair) for pair in pairs] for pairs in (self.duplicates, self.text_duplicates)
        )
        answers, problems = count_of(len(self.answers), "answer"), count_of(len(self.tried), "problem")
        kinds = (
            (self.wrong, f"of {answers} fails", f"of {answers} fail", "the tests of the same problem"),
            (
                self.unfailable,
                f"of {problems} has",
                f"of {problems} have",
                "tests that an empty function passes",
            ),
            (text_duplicates, "pair of tasks has", "pairs of tasks have", "one text or the same tests"),
            (duplicates, "pair of tasks has", "pairs of tasks have", "answers that pass each other's tests"),
        )
        return [
            f"{count_of(len(names), *verb)} {what}: {listed(names)}" for names, *verb, what in kinds if names
        ]


def text_duplicates(problems: Sequence[Problem]) -> tuple[tuple[str, str], ...]:
    """Pairs of tasks with the same text or tests: the first task of each group of duplicates, paired with every other."""
    return tuple(sorted((first, task) for task, first in same_problem(problems).items() if task != first))


def cannot_fail(problem: Problem) -> bool:
    """Whether a program that prints nothing passes all test cases; decided without running one."""
    return (
        bool(problem.cases)
        and not problem.checker
        and all(same(problem.compare, b"", case["stdout"]) for case in problem.cases)
    )


def on_tests_of(problem: Problem, other: Problem, text: str) -> tuple[Problem, str]:
    """The problem and the completion with which the sandbox runs the answer `text` of `problem` on the tests of `other`.

    The function in the answer gets the name that the tests of `other` call.
    """
    prompt = problem.prompt
    name, wanted = function_of(problem), function_of(other)
    if other.tests and name and wanted:
        prompt, text = (re.sub(rf"\b{re.escape(name)}\b", wanted, part) for part in (prompt, text))
    return replace(other, prompt=prompt, example_tests=""), text


def neighbours(
    problems: Sequence[Problem], references: Mapping[str, tuple[str, ...]]
) -> Iterator[tuple[Problem, Problem]]:
    """Pairs of problems that may be duplicates: each problem with its most similar problems of the same language and kind.

    Similarity is the cosine similarity of the words in prompts, tests and answers, where rare words weigh more. At least one
    problem of a pair has an answer.
    """
    known = set(text_duplicates(problems))
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
        most = max(NEAREST, DUPLICATE_RUNS // (2 * len(group)))
        chosen = {(i, j) for of_one in scores.values() for _, i, j in sorted(of_one)[:most]}
        for i, j in sorted(chosen):
            yield group[i], group[j]


def overview(found: Found) -> list[str]:
    """Lines that describe the problems of a source, with the findings that need no programs to run."""
    problems = found.problems
    tasks = {split: {p.task for p in problems if p.split == split} for split in _EVALUATED}
    learnt = [problem for problem in problems if problem.split == "sft"]
    answered = sum(problem.response is not None for problem in learnt)
    lines = [
        "tasks: " + ", ".join(f"{split} {len(names)}" for split, names in tasks.items()),
        f"answers to learn from: {answered} of {count_of(len(learnt), 'problem')} in sft",
        "no problem to evaluate on is, by its text or tests, one to train on",
    ]
    if found.left_out:
        lines.append(f"left out: {found.told}")
    unfailable = tuple(p.id for p in problems if cannot_fail(p))
    lines += Findings(
        tried=tuple(p.id for p in problems if p.cases),
        unfailable=unfailable,
        text_duplicates=text_duplicates(problems),
    ).lines()
    return lines


def act(found: Found, findings: Findings, setting: str) -> Found:
    """`found` with the counts of `findings`; if `setting` is `exclude`, also without the faulty problems and answers.

    `setting`: `selftrain.config.OutsideConfig.check`. Raises `DataError` where it is `refuse` and there are findings, and where
    `exclude` leaves no answer for SFT.
    """
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
    """`found` without wrong answers, problems whose tests cannot fail, and duplicates of evaluation problems."""
    wrong, unfailable = set(findings.wrong), set(findings.unfailable)
    duplicates = set(_used_before(found.problems, findings.duplicates))
    dropped = {p.task: UNFAILABLE for p in found.problems if p.id in unfailable} | dict.fromkeys(
        duplicates, DUPLICATE
    )
    kept = [
        replace(problem, response=None) if problem.id in wrong else problem
        for problem in found.problems
        if problem.id not in unfailable and problem.task not in duplicates
    ]
    learnt = [problem for problem in kept if problem.split == "sft"]
    if learnt and not any(problem.response for problem in learnt):
        raise DataError(
            f"{none_of(len(learnt), 'problem')} of split sft has an answer that passes its own tests: "
            f"{listed([p.id for p in learnt])}; mend them, or set problems.check to count to learn from them all the same"
        )
    return replace(found, problems=kept, left_out=found.left_out + Counter(dropped.values()))


def _used_before(problems: Sequence[Problem], duplicates: Sequence[tuple[str, str]]) -> Iterator[str]:
    """For each pair of duplicates in different splits, the later being an evaluation split: the task in the earlier split."""
    splits = {problem.task: problem.split for problem in problems}
    for pair in duplicates:
        first, last = sorted(pair, key=lambda task: _EVALUATED.index(splits[task]))
        if splits[last] in ("validation", "test") and splits[first] != splits[last]:
            yield first


def _groups(
    problems: Sequence[Problem], references: Mapping[str, tuple[str, ...]]
) -> Iterator[list[Problem]]:
    """Groups of problems in which to search for duplicates; all problems of a group have one language and one kind."""
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
    """Pairs of indices of problems to compare: all pairs, or in a large group the pairs that share a rare word."""
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
