"""Reads rows of a user's own problem files, whose fields are those of `selftrain.records.Problem`."""

from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field

from sandbox.compare import DEFAULT_RULE, check_rule
from sandbox.completion import is_answer
from sandbox.languages import LANGUAGES, refusal, short_name
from selftrain.errors import DataError
from selftrain.problems.answers import Cleaned, clean
from selftrain.problems.multipl_e import StopToken, check_language, is_multipl_e
from selftrain.problems.rows import Fields, MemoryLimit, Row, TimeLimit, check_fields
from selftrain.records import Problem


class _Exact(Fields):
    model_config = ConfigDict(extra="forbid")


class _Case(_Exact):
    stdin: str
    stdout: str


class _Checker(_Exact):
    language: str
    program: Annotated[str, Field(min_length=1)]


class _Fields(_Exact):
    task: Annotated[str, Field(min_length=1)]
    language: str
    prompt: Annotated[str, Field(min_length=1)]
    tests: str = ""
    cases: list[_Case] = Field(default_factory=list)
    id: Annotated[str, Field(min_length=1)] | None = None
    split: Literal["sft", "rl", "validation", "test"] | None = None
    source: str | None = None
    stop_tokens: list[StopToken] = Field(default_factory=list)
    response: str | None = None
    example_tests: str = ""
    compare: Annotated[str, AfterValidator(check_rule)] = DEFAULT_RULE
    checker: _Checker | None = None
    time_limit: TimeLimit = None
    memory_limit_bytes: MemoryLimit = None


FIELDS = frozenset(_Fields.model_fields)
"""The fields that a row may have."""


def jsonl_problem(row: Row) -> tuple[Problem, Cleaned]:
    """The problem in `row`, with an empty split if the row has none, and its cleaned response. Raises `DataError`."""
    if is_multipl_e(row):
        raise DataError(
            f"{row.where}: the row has MultiPL-E's fields, `name` in place of `task`; expected problems.source: multipl-e"
        )
    fields = check_fields(row, _Fields)
    language = check_language(row, fields.language)
    if bool(fields.tests.strip()) == bool(fields.cases):
        has = "both" if fields.cases else "neither"
        raise DataError(
            f"{row.where}: expected either `tests` (a program) or `cases` (input and output), got {has}"
        )
    if not fields.cases and fields.model_fields_set & {"compare", "checker"}:
        raise DataError(
            f"{row.where}: `compare` and `checker` are for problems with `cases`, and there are none"
        )
    checker = fields.checker.model_dump() if fields.checker else None
    if checker:
        checker["language"] = short_name(checker["language"])
        if checker["language"] not in LANGUAGES:
            raise DataError(f"{row.where}: field 'checker.language': {refusal(checker['language'])}")
    cleaned = Cleaned(fields.response, "as it is" if fields.response else "")
    if fields.response and is_answer(fields.prompt, fields.response, language):
        cleaned = clean(fields.prompt, fields.response, language, fields.stop_tokens, fields.tests)
    given = fields.model_dump()
    given |= {
        "id": fields.id or f"{fields.task}.{language}",
        "language": language,
        "split": fields.split or "",
        "source": fields.source or row.source,
        "stop_tokens": tuple(fields.stop_tokens),
        "cases": tuple(given["cases"]),
        "response": cleaned.text,
        "checker": checker,
    }
    return Problem(**given), cleaned
