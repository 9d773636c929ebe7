"""Reads rows with MultiPL-E's fields."""

from typing import Annotated

from pydantic import Field

from sandbox.languages import LANGUAGES, READ_ONLY, refusal, short_name
from selftrain.errors import DataError
from selftrain.problems.answers import Cleaned, clean
from selftrain.problems.examples import example_tests
from selftrain.problems.rows import Fields, Row, check_fields
from selftrain.records import Problem

StopToken = Annotated[str, Field(min_length=1)]


class _Fields(Fields):
    name: str = Field(min_length=1)
    language: str
    prompt: str = Field(min_length=1)
    tests: str = Field(pattern=r"\S")
    stop_tokens: list[StopToken]
    response: str | None = None


def is_multipl_e(row: Row) -> bool:
    """Whether a row has MultiPL-E's fields: a `name`, and no `task`, which rows of a user's own file have."""
    return isinstance(row.fields, dict) and "name" in row.fields and "task" not in row.fields


def multipl_e_problem(row: Row) -> tuple[Problem, Cleaned]:
    """The problem in `row`, with an empty split, and its cleaned response. Raises `DataError` for invalid fields."""
    fields = check_fields(row, _Fields)
    language = check_language(row, fields.language)
    cleaned = clean(fields.prompt, fields.response, language, fields.stop_tokens, fields.tests)
    problem = Problem(
        id=f"{fields.name}.{language}",
        task=fields.name,
        language=language,
        prompt=fields.prompt,
        tests=fields.tests,
        split="",
        source=row.source,
        stop_tokens=tuple(fields.stop_tokens),
        response=cleaned.text,
        example_tests=example_tests(fields.prompt, language, fields.tests),
    )
    return problem, cleaned


def check_language(row: Row, text: str) -> str:
    """The short name of the language `text` in `row`. Raises `DataError` where the sandbox does not know the language.

    Languages that the sandbox knows but cannot run are accepted here; the caller keeps only the config's languages.
    """
    name = short_name(text)
    if name not in LANGUAGES and name not in READ_ONLY:
        raise DataError(
            f"{row.where}: field 'language': {refusal(text)}; read but not run: {', '.join(READ_ONLY)}"
        )
    return name
