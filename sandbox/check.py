"""Tests a backend on this machine (`python -m sandbox check`).

It judges a program for every verdict in every installed language (`sandbox.shapes`), then the hostile programs
(`sandbox.hostile`). After each hostile program it judges a harmless one, the probe, which fails if it finds anything left behind.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from sandbox.client import Sandbox
from sandbox.hostile import HOSTILE, PROBE
from sandbox.languages import LANGUAGES
from sandbox.shapes import ENDINGS, program
from sandbox.verdicts import Program, Result, Verdict

ISOLATING = ("docker", "bubblewrap")


@dataclass(frozen=True)
class Finding:
    """The result of one check. `said`: the verdict, or that tools are missing. `problem`: what is wrong; empty if nothing is."""

    name: str
    said: str
    problem: str = ""


def check(sandbox: Sandbox, languages: Sequence[str] = ()) -> Iterator[Finding]:
    """Check the verdicts in `languages` (empty: all that are installed) and the isolation. Yields a finding for each program."""
    for name in languages or LANGUAGES:
        if missing := sandbox.missing_tools(name):
            lacks = f"lacks {', '.join(missing)}"
            yield Finding(name, f"not there: {lacks}", lacks if languages else "")
    there = [name for name in languages or LANGUAGES if not sandbox.missing_tools(name)]
    yield from verdicts(sandbox, there)
    if sandbox.backend in ISOLATING:
        yield from hostile(sandbox, there)


def verdicts(sandbox: Sandbox, there: Sequence[str]) -> Iterator[Finding]:
    """Judge a program for every verdict in every language of `there` (the installed ones)."""
    expected = {f"{language}-{ending}": verdict for language in there for ending, verdict in ENDINGS.items()}
    programs = [program(language, ending) for language in there for ending in ENDINGS]
    for result in sandbox.run(programs):
        wanted = expected[result.id]
        problem = "" if result.verdict is wanted else f"expected {wanted}; {_tail(result)}"
        yield Finding(result.id, str(result.verdict), problem)


def hostile(sandbox: Sandbox, there: Sequence[str]) -> Iterator[Finding]:
    """Judge the hostile programs, each followed by the probe."""
    for number, attempt in enumerate(HOSTILE):
        if attempt.language not in there:
            continue
        result = _judge(sandbox, attempt.program)
        after = _judge(sandbox, replace(PROBE, source=f"{PROBE.source}#{number}\n"))
        problem = "" if attempt.contained(result.verdict) else f"not contained; {_tail(result)}"
        if after.verdict is not Verdict.passed:
            problem += f" the program after it: {after.verdict}; {_tail(after)}"
        yield Finding(attempt.name, str(result.verdict), problem)


def _judge(sandbox: Sandbox, one: Program) -> Result:
    (result,) = sandbox.run([one])
    return result


def _tail(result: Result) -> str:
    return f"exit code {result.exit_code}, {(result.stderr or result.stdout)[-300:]!r}"
