"""Reads programs that something else wrote: MultiPL-E's completions files (NAME.json.gz), and rows of JSON lines.

A row is a problem, with MultiPL-E's fields or those of a user's own file (docs/own-data.md), and its completions:

    completions    texts that continue the prompt
    mean_logprobs  mean log-probability per token of each, in nats, under the generator that wrote them; may be left out
    greedy         the greedy completion; may be left out

`selftrain generate` writes such rows. Several rows of one problem are joined. Other fields are ignored.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import Field

from sandbox.languages import LANGUAGES, refusal
from selftrain.errors import DataError
from selftrain.problems.jsonl import FIELDS, jsonl_problem
from selftrain.problems.multipl_e import is_multipl_e, multipl_e_problem
from selftrain.problems.rows import SUFFIXES, Fields, Row, check_fields, find_files, read_rows
from selftrain.records import Problem

RESULTS = ".results.json.gz"
"""Suffix of the files that MultiPL-E writes beside those with completions."""


@dataclass(frozen=True)
class Written:
    """A problem and the programs that something else wrote for it.

    mean_logprobs  as many as `completions`; None where they are unknown
    """

    problem: Problem
    completions: tuple[str, ...]
    mean_logprobs: tuple[float, ...] | None = None
    greedy: str | None = None


class _Programs(Fields):
    completions: Annotated[list[str], Field(min_length=1)]
    mean_logprobs: list[Annotated[float, Field(allow_inf_nan=False, le=0)]] | None = None
    greedy: str | None = None


def read_completions(entries: Sequence[str]) -> list[Written]:
    """The problems with their completions in `entries`: files, globs, and folders with all below them.

    Raises `DataError` that names file and line: for an entry without files, a row that lacks a field, a language that the sandbox
    does not run, and two rows of one name that are of different problems.
    """
    found: dict[str, Written] = {}
    for path in _files(entries):
        for row in read_rows(path):
            one = _written(row)
            before = found.setdefault(one.problem.id, one)
            if before is not one:
                found[one.problem.id] = _joined(before, one, row.where)
    return list(found.values())


def problem_of(row: Row) -> Problem:
    """The problem of a row with MultiPL-E's fields, or with those of a user's own file."""
    own = row.fields
    if is_multipl_e(row):
        return multipl_e_problem(replace(row, fields={"stop_tokens": [], **own}))[0]
    if isinstance(own, dict):
        own = {name: value for name, value in own.items() if name in FIELDS}
    return jsonl_problem(replace(row, fields=own))[0]


def _files(entries: Sequence[str]) -> Iterator[Path]:
    for entry in entries:
        folder = Path(entry)
        if not folder.is_dir():
            yield from find_files([entry])
            continue
        files = [path for path in sorted(folder.rglob("*")) if path.name.endswith(SUFFIXES)]
        below = [path for path in files if not path.name.endswith(RESULTS)]
        if not below:
            raise DataError(
                f"{entry}: no completions there; expected MultiPL-E's NAME.json.gz, or files of JSON lines with completions"
            )
        yield from below


def _written(row: Row) -> Written:
    programs = check_fields(row, _Programs)
    problem = problem_of(row)
    if problem.language not in LANGUAGES:
        raise DataError(f"{row.where}: field 'language': {refusal(problem.language)}")
    given = programs.mean_logprobs
    if given is not None and len(given) != len(programs.completions):
        raise DataError(
            f"{row.where}: {len(given)} mean_logprobs for {len(programs.completions)} completions; expected one for each"
        )
    return Written(
        problem, tuple(programs.completions), None if given is None else tuple(given), programs.greedy
    )


def _joined(one: Written, other: Written, where: str) -> Written:
    if (one.problem.prompt, one.problem.tests) != (other.problem.prompt, other.problem.tests):
        raise DataError(
            f"{where}: problem {one.problem.id!r} is there twice with another prompt or other tests; give each its own name"
        )
    logprobs = None
    if one.mean_logprobs is not None and other.mean_logprobs is not None:
        logprobs = one.mean_logprobs + other.mean_logprobs
    greedy = one.greedy if one.greedy is not None else other.greedy
    return Written(one.problem, one.completions + other.completions, logprobs, greedy)
