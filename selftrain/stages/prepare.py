"""Stage `prepare`: reads the problems, assigns splits, and checks for leaks and for tests that cannot run."""

import json
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, groupby
from shlex import quote
from typing import Any

from sandbox.programs import assemble
from sandbox.verdicts import Program, Verdict
from selftrain.config import SPLITS, ExecuteConfig, ProblemsConfig, Strict
from selftrain.errors import DataError
from selftrain.problems.read import Found, check_filled, find_problems
from selftrain.problems.references import doubt
from selftrain.records import Problem, digest, write_records
from selftrain.stage import Context, Outcome, Stage
from selftrain.stages.execute import programs
from selftrain.stages.prepare_checks import EMPTY_BODIES, check
from selftrain.units import count_of

LOGGER = logging.getLogger("selftrain")

EMPTY_FUNCTIONS = {
    **{language: EMPTY_BODIES[language] for language in ("cpp", "java", "cs", "sh")},
    "php": "    throw new Exception();\n}",
    "ts": "    throw 0;\n}",
}
"""Language -> function body that compiles for any return type. In other languages the tests parse without a function."""
LACKS = re.compile(r"ModuleNotFoundError|Cannot find module|Call to undefined function")
"""Matches an error message about a missing module or function."""
NAMED = 5
"""Largest number of problems that a message names."""


class PrepareSlice(Strict):
    """What the problems depend on.

    content    sha256 of the source's files, or the hub's commit; never a path
    toolchain  language -> the sandbox's identity for it; None for the bank, whose tests are not run here
    """

    problems: ProblemsConfig
    content: dict[str, Any]
    toolchain: dict[str, str] | None = None


def run(context: Context) -> Outcome:
    """Writes problems.parquet. Raises `DataError` where the tests of a problem from outside cannot run."""
    found = find_problems(context.config.problems, context.config.content)
    if context.config.problems.source != "bank":  # the bank generates its own tests
        check_tests(context, found.problems)
        check_checkers(context, found.problems)
        found = without_doubtful(context, check(context, found))
    return write(context, found)


def write(context: Context, found: Found) -> Outcome:
    """Writes problems.parquet. Raises `DataError` where a split has no problem."""
    problems = found.problems
    counts = Counter(problem.split for problem in problems)
    check_filled(found, context.config.problems)
    write_records(context.folder / "problems.parquet", problems, Problem)
    metrics = {
        "source": context.config.problems.source,
        "problems": {split: counts[split] for split in SPLITS},
        "languages": dict(sorted(Counter(p.language for p in problems).items())),
        "left_out": dict(sorted(found.left_out.items())),
        "answers": dict(sorted(Counter(cleaned.how for cleaned in found.answers.values()).items())),
        "checks": dict(found.checks),
    }
    return Outcome(digest(problems), metrics)


def without_doubtful(context: Context, found: Found) -> Found:
    """Leave out problems whose reference programs show that the tests cannot be trusted (`doubt`), and count them.

    Only problems with cases whose candidates will be executed are tried, that is, not those of the sft split. At least two
    reference programs are needed. One is enough if its data set has judged it; `check` runs the answers of other problems.
    """
    # Grouped by task and cases, because the languages of a task share their cases.
    tried: dict[str, list[Program]] = defaultdict(list)
    keys: dict[str, str] = {}
    judged: set[str] = set()
    for problem in found.problems:
        if problem.cases and problem.split != "sft":
            key = keys[problem.id] = json.dumps([problem.task, problem.cases])
            for at, text in enumerate(found.references.get(problem.id, ())):
                tried[key] += programs(problem, f"{problem.id}#{at}", text, ExecuteConfig())
            if problem.id not in found.untried:
                judged.add(key)
    tried = {
        key: several for key, several in tried.items() if len(several) > 1 or (several and key in judged)
    }
    results = {result.id: result for result in context.judge(list(chain(*tried.values())), "right programs")}
    doubts = {
        key: doubt([results[one.id] for one in several], several[0].compare) for key, several in tried.items()
    }
    dropped = {p.task: doubts[keys[p.id]] for p in found.problems if doubts.get(keys.get(p.id, ""))}
    kept = [problem for problem in found.problems if problem.task not in dropped]
    for reason, tasks in groupby(sorted(dropped, key=dropped.__getitem__), dropped.__getitem__):
        names = list(tasks)
        LOGGER.info(
            "left out, %s: %s%s", reason, ", ".join(names[:NAMED]), ", ..." if len(names) > NAMED else ""
        )
    return replace(found, problems=kept, left_out=found.left_out + Counter(dropped.values()))


def check_tests(context: Context, problems: Sequence[Problem]) -> None:
    """Raise DataError if a problem's tests do not compile or need a missing module or function: no candidate could pass."""
    broken = broken_tests(context, problems)
    if broken:
        sources = {problem.id: problem.source for problem in problems}
        lines = [f"  {id} ({sources[id]}): {why}" for id, why in sorted(broken.items())[:NAMED]]
        more = f"\n  and {len(broken) - NAMED} more" if len(broken) > NAMED else ""
        tried = sum(bool(p.tests) and p.split != "sft" for p in problems)
        raise DataError(
            f"the tests of {len(broken)} of {count_of(tried, 'problem')} cannot run, even on an empty function; mend them or "
            "leave their tasks out with problems.exclude:\n" + "\n".join(lines) + more
        )


def broken_tests(context: Context, problems: Sequence[Problem]) -> dict[str, str]:
    """Problem id -> what was printed, for tests that do not compile or need a missing module or function."""
    programs = [around_nothing(p) for p in problems if p.tests and p.split != "sft"]
    broken: dict[str, str] = {}
    for result in context.judge(programs, "tests"):
        lacks = result.verdict is Verdict.runtime_error and LACKS.search(result.stderr)
        if result.verdict is Verdict.compile_error or lacks:
            broken[result.id] = last_line(result.stderr or result.stdout)
    return broken


def check_checkers(context: Context, problems: Sequence[Problem]) -> None:
    """Raise DataError if a problem's checker fails on the expected output, on empty output or on meaningless output."""
    failed = broken_checkers(context, problems)
    if failed:
        lines = "".join(f"\n  {id}: {failed[id]}" for id in sorted(failed)[:NAMED])
        more = f"\n  and {len(failed) - NAMED} more" if len(failed) > NAMED else ""
        raise DataError(
            f"the checkers of {count_of(len(failed), 'problem')} fail on the expected output, on an empty one or on '?!'; they have to say of "
            f"any output whether it is right (docs/sandbox.md); mend them, or leave their tasks out with problems.exclude:{lines}{more}"
        )


def broken_checkers(context: Context, problems: Sequence[Problem]) -> dict[str, str]:
    """Problem id -> what the sandbox said, for checkers that fail on such outputs: they would fail on many candidates."""
    wanted: dict[str, Program] = {}
    for problem in problems:
        if problem.checker and problem.split != "sft":
            for at, output in enumerate((problem.cases[0]["stdout"], "", "?!")):
                shell = replace(problem, language="sh", prompt="", example_tests="", cases=problem.cases[:1])
                printing = f"printf %s {quote(output)}"
                [program] = programs(shell, f"{problem.id}#{at}", printing, ExecuteConfig())
                wanted[program.id] = program
    failed: dict[str, str] = {}
    for result in context.judge(wanted.values(), "checkers"):
        if result.verdict is Verdict.sandbox_error and result.stderr.startswith("the checker"):
            failed.setdefault(result.id.rpartition("#")[0], result.stderr.strip())
    return failed


def around_nothing(problem: Problem) -> Program:
    """The problem's tests with a function that does nothing, or alone if the language can parse them alone."""
    body = EMPTY_FUNCTIONS.get(problem.language)
    prompt = "" if body is None else problem.prompt
    source = assemble(problem.language, prompt, body or "", problem.tests).source
    if problem.language == "sh":  # Bash parses a script while running it; `set -n`: parse all, run nothing
        source = f"set -n\n{source}"
    return Program(problem.id, problem.language, source)


def last_line(text: str) -> str:
    """The first line that contains "error", else the last line; "refused" if there is no text."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((line for line in lines if "error" in line.lower()), lines[-1] if lines else "refused")


PREPARE = Stage("prepare", 4, run)
