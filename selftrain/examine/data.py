"""Checks a file of problems before anything is trained, with the checks of stage `prepare`; every finding names file and line.

Not covered: tests that are weak but not empty, and reworded problems whose tests do not pass each other's answers.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sandbox.languages import LANGUAGES
from sandbox.verdicts import Result, Verdict
from selftrain.errors import DataError
from selftrain.problems.answers import Cleaned
from selftrain.problems.jsonl import jsonl_problem
from selftrain.problems.leaks import find_leaks
from selftrain.problems.multipl_e import is_multipl_e, multipl_e_problem
from selftrain.problems.read import Found
from selftrain.problems.rows import find_files, read_rows
from selftrain.records import Problem
from selftrain.stage import Context
from selftrain.stages.prepare import broken_checkers, broken_tests, last_line
from selftrain.stages.prepare_checks import Key, tried

PROBLEM = ("problem has", "problems have")
KINDS = {
    "unreadable": (
        "line cannot",
        "lines cannot",
        "be read as a problem",
        "mend them: a run refuses the whole file",
    ),
    "twice": (*PROBLEM, "the id of an earlier one", "take one out, or give it another `task` or `id`"),
    "answer_unusable": (
        "answer has",
        "answers have",
        "no completion of the prompt",
        "give the text that follows the prompt",
    ),
    "tests_broken": (*PROBLEM, "tests that cannot run", "mend `tests`: no program could pass them"),
    "checker_broken": (*PROBLEM, "a checker that fails", "mend `checker`: it must judge any output"),
    "answer_wrong": (
        "answer fails",
        "answers fail",
        "the tests of the same problem",
        "mend `response` or `tests`, whichever is wrong",
    ),
    "cannot_fail": (*PROBLEM, "tests that an empty program passes", "add tests: any program counts as right"),
    "duplicates": (
        "pair of tasks is",
        "pairs of tasks are",
        "the same task",
        "take one out, or give both one `task` in different languages",
    ),
    "leak": (
        "task is",
        "tasks are",
        "also in what is evaluated on",
        "take them out of the training problems (`problems.exclude`)",
    ),
    "too_long": (
        "prompt leaves",
        "prompts leave",
        "no room for a completion",
        "shorten them, or take a model with a longer input",
    ),
}
"""Kind of finding -> what is wrong with one thing, with several, the rest of the sentence, and what to do."""


@dataclass(frozen=True)
class Finding:
    """One fault. `kind`: of `KINDS`; `where`: FILE:LINE; `id`: of the problem, empty where the line has none; `text`: details."""

    kind: str
    where: str
    id: str
    text: str


@dataclass
class Read:
    """The problems of some files. `where`: problem id -> FILE:LINE; `skipped`: language that the sandbox does not run -> rows."""

    problems: list[Problem] = field(default_factory=list)
    where: dict[str, str] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)


def read_file(entries: Sequence[str]) -> Read:
    """Read all rows of the files that `entries` name; broken ones become findings. Raises DataError for a file as a whole."""
    read = Read()

    def broken(error: DataError) -> None:
        where, _, text = str(error).partition(": ")
        read.findings.append(Finding("unreadable", where, "", text))

    for path in find_files(entries):
        for row in read_rows(path, broken):
            try:
                problem, cleaned = (multipl_e_problem if is_multipl_e(row) else jsonl_problem)(row)
            except DataError as error:
                broken(error)
                continue
            _add(read, problem, cleaned, row.where)
    return read


def _add(read: Read, problem: Problem, cleaned: Cleaned, where: str) -> None:
    if problem.language not in LANGUAGES:
        read.skipped[problem.language] += 1
        return
    if problem.id in read.where:
        text = f"first at {read.where[problem.id]}"
        read.findings.append(Finding("twice", where, problem.id, text))
        return
    if cleaned.how == "left out":
        read.findings.append(Finding("answer_unusable", where, problem.id, cleaned.why))
    read.problems.append(problem)
    read.where[problem.id] = where


def run_checks(context: Context, read: Read, held_out: Read) -> tuple[list[Finding], dict[str, int]]:
    """The findings that running programs gives, and the number of programs of each kind that were run.

    `held_out`: problems to evaluate on, which are compared with those of `read`, and not checked themselves.
    """
    own = [replace(problem, split="rl") for problem in read.problems]  # all are checked, those for sft too
    others = [
        replace(problem, id=f"{problem.id} (held out)", split="test", response=None)
        for problem in held_out.problems
    ]
    where = read.where | {f"{id} (held out)": place for id, place in held_out.where.items()}
    answers: dict[str, tuple[str, ...]] = {p.id: (p.response,) for p in own if p.response}
    answers |= {
        other.id: (p.response,) for other, p in zip(others, held_out.problems, strict=True) if p.response
    }
    broken = broken_tests(context, own)
    checkers = broken_checkers(context, own)

    def told(kind: str, id: str, text: str) -> Finding:
        return Finding(kind, where[id], id, text)

    found = [told("tests_broken", id, why) for id, why in broken.items()]
    found += [told("checker_broken", id, why) for id, why in checkers.items()]
    usable = [problem for problem in own if problem.id not in broken and problem.id not in checkers]
    findings, results = tried(context, Found(usable + others, answers), usable + others)
    wrong, unfailable = (
        [id for id in ids if id in read.where] for ids in (findings.wrong, findings.unfailable)
    )
    prompts = {problem.id: problem.prompt for problem in own}
    found += [
        told("answer_wrong", id, _said(results[("answer", id)]) + _joined(prompts[id], answers[id][0]))
        for id in wrong
    ]
    found += [told("cannot_fail", id, _empty(("empty", id), results)) for id in unfailable]
    leaks = _leaks(read, own + others)
    found += [
        told("leak", one.id, f"has the {kind} of {held.id}, {where[held.id]}") for held, one, kind in leaks
    ]
    known = {frozenset((held.task, one.task)) for held, one, _ in leaks}
    pairs = dict.fromkeys(findings.text_duplicates, "have one text or the same tests")
    pairs |= dict.fromkeys(findings.duplicates, "have answers that pass each other's tests")
    pairs = {pair: how for pair, how in pairs.items() if frozenset(pair) not in known}
    found += _duplicates(pairs, usable, others, where)
    kinds = Counter(key[0] for key in results)
    return found, {
        "answers": kinds["answer"],
        "empty functions": kinds["empty"],
        "answers on other tests": kinds["duplicate"],
    }


def _said(result: Result) -> str:
    """The verdict on an answer, with the last line that it printed."""
    text = (result.stderr or result.stdout).strip()
    return str(result.verdict) + (f": {last_line(text)[:200]}" if text else "")


def _joined(prompt: str, answer: str) -> str:
    """What a failing answer's author may have missed where the answer goes on in the prompt's last line."""
    if prompt.endswith("\n") or answer.startswith(("\n", "\r")):
        return ""
    return "; `prompt` does not end with a line break, so the answer goes on in its last line"


def _empty(key: Key, results: Mapping[Key, Result]) -> str:
    if key in results and results[key].verdict is Verdict.passed:
        return "an empty function passes"
    return "a program that prints nothing passes"


def _leaks(read: Read, problems: Sequence[Problem]) -> list[tuple[Problem, Problem, str]]:
    """Tasks of the file that are also in the held-out problems, or in two splits of the file that must not share any: the
    held-out problem, the other, and what they share."""
    splits = {problem.id: problem.split for problem in read.problems if problem.split}
    return find_leaks([replace(one, split=splits.get(one.id, one.split)) for one in problems])


def _duplicates(
    pairs: Mapping[tuple[str, str], str],
    own: Sequence[Problem],
    others: Sequence[Problem],
    where: Mapping[str, str],
) -> Iterator[Finding]:
    """Each pair of duplicates as a finding on a problem of the file; a pair with a held-out task is a leak."""
    # The first problem of each task.
    mine, held = ({problem.task: problem for problem in reversed(some)} for some in (own, others))
    for pair, how in pairs.items():
        inside = [mine[task] for task in pair if task in mine]
        outside = [held[task] for task in pair if task in held and task not in mine]
        if len(inside) == 2:
            one, other = inside
            yield Finding("duplicates", where[other.id], other.id, f"and {one.id}, {where[one.id]}, {how}")
        elif inside and outside:
            text = f"and {outside[0].id}, {where[outside[0].id]}, {how}"
            yield Finding("leak", where[inside[0].id], inside[0].id, text)


def too_long(
    read: Read, lengths: Callable[[Problem], int], context: int, new_tokens: int
) -> Iterator[Finding]:
    """Problems whose prompt has more than `context` - `new_tokens` tokens by `lengths`."""
    for problem in read.problems:
        length = lengths(problem)
        if length + new_tokens > context:
            text = f"{length} tokens and {new_tokens} to write, and the model's longest input has {context}"
            yield Finding("too_long", read.where[problem.id], problem.id, text)


def line_of(finding: Finding) -> tuple[str, int]:
    """The place of a finding, to sort by."""
    path, _, line = finding.where.rpartition(":")
    return (path, int(line)) if line.isdigit() else (str(Path(finding.where)), 0)
