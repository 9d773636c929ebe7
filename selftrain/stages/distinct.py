"""The distinct programs of each problem, over several pools.

Programs that differ only in comments, blanks or empty lines are one program (`form`). Python programs are compared by their syntax
trees; in other languages, and where Python cannot parse the program, comments are left out and blanks between words are counted
once. A program that passed once and failed another time is left out: neither label is certain, be it a time limit on a busy
machine, an answer by chance, or an audit that saw one copy only.
"""

from __future__ import annotations

import ast
import hashlib
import re
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sandbox.lexer import JOINED, STRING, masked
from sandbox.verdicts import Verdict
from selftrain.problems.chat import source_of
from selftrain.records import Candidate, CandidateText, Execution, Problem

INDENTED = ("py", "hs")
"""Languages in which the blanks at the beginning of a line have a meaning."""

Pool = tuple[Sequence[CandidateText | Candidate], Sequence[Execution]]
"""The candidates of one generator, and their executions."""


@dataclass(frozen=True)
class Program:
    """One distinct program of a problem.

    id, sample, completion  of the first candidate with this program; the id is POOL/ID
    form       equal for programs that are the same, see `form`
    score      the reranker's score; None in round 1, which has no reranker
    pass_rate  share of the test cases that it passes; None if unknown
    """

    id: str
    problem_id: str
    sample: int
    completion: str
    verdict: Verdict
    form: str
    score: float | None = None
    pass_rate: float | None = None

    @property
    def passed(self) -> bool:
        """Whether it passed all tests."""
        return self.verdict is Verdict.passed


def distinct_programs(
    problems: Mapping[str, Problem], pools: Mapping[str, Pool]
) -> tuple[dict[str, list[Program]], int]:
    """Problem id -> its distinct sampled programs that the sandbox judged, in the order of the pools and of sampling; and the
    number of programs that are left out since they both passed and failed. Greedy completions are not among them."""
    found: dict[str, list[tuple[str, CandidateText | Candidate, Execution]]] = defaultdict(list)
    for name, (candidates, rows) in pools.items():
        executions = {row.candidate_id: row for row in rows}
        for candidate in candidates:
            execution = executions[candidate.id]
            if candidate.sample >= 0 and execution.verdict.is_label:
                found[candidate.problem_id].append((f"{name}/{candidate.id}", candidate, execution))
    programs, doubtful = {}, 0
    for id, judged in found.items():
        same = _by_form(problems[id], judged)
        programs[id] = [copies[0] for copies in same if len({copy.passed for copy in copies}) == 1]
        doubtful += len(same) - len(programs[id])
    return {id: each for id, each in programs.items() if each}, doubtful


def _by_form(
    problem: Problem, judged: Sequence[tuple[str, CandidateText | Candidate, Execution]]
) -> list[list[Program]]:
    """The programs, grouped by what they are."""
    forms: dict[str, str] = {}  # most copies are equal letter by letter, and parsed once
    same: dict[str, list[Program]] = defaultdict(list)
    for id, row, execution in judged:
        text = row.completion.rstrip()
        if text not in forms:
            forms[text] = form(problem, text)
        program = Program(
            id,
            problem.id,
            row.sample,
            row.completion,
            execution.verdict,
            forms[text],
            pass_rate=execution.pass_rate,
        )
        same[program.form].append(program)
    return list(same.values())


def form(problem: Problem, completion: str) -> str:
    """A digest that is the same for completions of `problem` that differ only in comments, blanks or empty lines.

    Of a completion that is a whole program in a code block (prompt style `chat`) it is the digest of that program.
    """
    prompt, text = source_of(problem.prompt, completion, "chat")
    code, start = prompt + text, len(prompt)
    tree = _tree(code) if problem.language == "py" else None
    bare = tree or _without_comments(code, start, problem.language)
    return hashlib.sha256(bare.encode("utf-8", "surrogatepass")).hexdigest()


def _tree(code: str) -> str | None:
    """The syntax tree of Python code, as text; None if Python cannot parse it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as an escape that is none
            return ast.dump(ast.parse(code))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _without_comments(code: str, start: int, language: str) -> str:
    """`code` from `start` on without comments and empty lines, with one blank where there are several; strings are unchanged.

    Unchanged but for blanks at its end if a string or comment is open there.
    """
    bare, closed = masked(code, language)
    if not closed:
        return code[start:].rstrip()
    strings: list[str] = []

    def keep(found: re.Match[str]) -> str:
        strings.append(code[start + found.start() : start + found.end()])
        return STRING

    bare = re.sub(f"{STRING}[{STRING}{JOINED}]*", keep, bare[start:])
    kept = []
    for line in bare.split("\n"):
        words = " ".join(line.replace(JOINED, " ").split())
        if words:
            indent = line[: len(line) - len(line.lstrip())] if language in INDENTED else ""
            kept.append(indent + words)
    return STRING.join(["\n".join(kept), *strings])
