"""Runs answers and empty functions on problems' tests, to find faulty problems in files from outside.

`selftrain.problems.checks` says which similar problems to compare, and interprets the results.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace

from sandbox.programs import assemble
from sandbox.verdicts import Program, Result, Verdict
from selftrain.config import ExecuteConfig
from selftrain.problems.checks import (
    Findings,
    act,
    cannot_fail,
    neighbours,
    on_tests_of,
    text_duplicates,
)
from selftrain.problems.leaks import function_of
from selftrain.problems.read import Found
from selftrain.records import Problem
from selftrain.stage import Context
from selftrain.stages.execute import programs

LOGGER = logging.getLogger("selftrain")

EMPTY_BODIES = {
    "py": "    pass\n",
    "js": "}",
    "ts": "    return undefined as any;\n}",
    "php": "}",
    "sh": "    :",
    "lua": "end",
    "rb": "end",
    "pl": "}",
    "r": "}",
    "cpp": "    throw 0;",
    "java": "        throw new RuntimeException();",
    "cs": "        throw new System.Exception();",
    "rs": "    panic!();",
    "go": '    panic("")\n}',
}
"""Language -> function body that does nothing. It throws if the language does not let a function end without a value."""

Key = tuple[str, ...]
"""Purpose of a run: ("answer", id) runs a problem's answer on its own tests, ("empty", id) an empty function on the tests, and
("duplicate", a, b) the answer of problem a on the tests of problem b, which may be a duplicate."""


def check(context: Context, found: Found) -> Found:
    """Check the answers, the tests and similar problems of `found`, act as `problems.check` says, and return the result."""
    setting = context.config.problems.check
    if setting == "off":
        return found
    problems = [problem for problem in found.problems if problem.id in found.untried]
    findings, _ = tried(context, found, problems)
    for line in findings.lines():
        LOGGER.warning("%s", line)
        context.log(f"WARNING: {line}")
    return act(found, findings, setting)


def tried(context: Context, found: Found, problems: list[Problem]) -> tuple[Findings, dict[Key, Result]]:
    """The findings on `problems`, and purpose of each run -> its result, without the runs that the sandbox could not judge."""
    results = _run(context, dict(_wanted(found, problems)))
    passed = {key: result.verdict is Verdict.passed for key, result in results.items()}
    return judge(found, problems, passed), results


def judge(found: Found, problems: list[Problem], passed: Mapping[Key, bool]) -> Findings:
    """The findings from `passed` (purpose of a run -> whether it passed), which lacks runs that the sandbox could not judge."""
    answers = tuple(key[1] for key in passed if key[0] == "answer")
    wrong = {key[1] for key in passed if key[0] == "answer" and not passed[key]}
    unfailable = {key[1] for key in passed if key[0] == "empty" and passed[key]}
    unfailable |= {problem.id for problem in problems if cannot_fail(problem)}
    tried = {key[1] for key in passed if key[0] == "empty"} | {p.id for p in problems if p.cases}
    duplicates = []
    for key in passed:
        one, other = key[1:] if key[0] == "duplicate" else ("", "")
        if not one or not passed[key] or {one, other} & (wrong | unfailable):
            continue
        back = passed.get(("duplicate", other, one), not found.references.get(other))
        if back and (one < other or not found.references.get(other)):
            duplicates.append((one, other))
    tasks = {problem.id: problem.task for problem in problems}
    pairs = {(min(tasks[a], tasks[b]), max(tasks[a], tasks[b])) for a, b in duplicates}
    return Findings(
        answers,
        tuple(sorted(wrong)),
        tuple(sorted(tried)),
        tuple(sorted(unfailable)),
        text_duplicates(problems),
        tuple(sorted(pairs)),
    )


def _wanted(found: Found, problems: list[Problem]) -> Iterator[tuple[Key, Program]]:
    """The programs to run, each with its purpose."""
    for problem in problems:
        alone = replace(problem, example_tests="")
        for text in found.references.get(problem.id, ())[:1]:
            yield ("answer", problem.id), _program(alone, text, f"{problem.id}#answer")
        if problem.split != "sft" and (empty := _empty(problem)):
            yield ("empty", problem.id), empty
    for one, other in neighbours(problems, found.references):
        for a, b in ((one, other), (other, one)):
            for text in found.references.get(a.id, ())[:1]:
                yield ("duplicate", a.id, b.id), _program(*on_tests_of(a, b, text), f"{a.id}#on#{b.id}")


def _empty(problem: Problem) -> Program | None:
    """An empty function with the problem's tests; an empty program if the problem has a checker; None if neither is possible."""
    if problem.cases:
        alone = replace(problem, example_tests="")
        return _program(alone, "", f"{problem.id}#empty") if problem.checker else None
    body = EMPTY_BODIES.get(problem.language)
    if body is None or function_of(problem) is None:
        return None
    made = assemble(problem.language, problem.prompt, body, problem.tests)
    return made.program(f"{problem.id}#empty", problem.language)


def _program(problem: Problem, text: str, id: str) -> Program:
    """The program that runs `text`, a completion of the prompt of `problem`, on the problem's tests."""
    return next(programs(problem, id, text, ExecuteConfig(audit="off")))


def _run(context: Context, plan: Mapping[Key, Program]) -> dict[Key, Result]:
    """Purpose of each run -> its result. Programs that the sandbox failed to judge are left out."""
    keys = {program.id: key for key, program in plan.items()}
    found = context.judge(plan.values(), "programs that check the problems")
    results = {keys[result.id]: result for result in found}
    # In the order of the plan, because the sandbox returns results in the order in which programs end.
    return {key: results[key] for key in plan if key in results and results[key].verdict.is_label}
