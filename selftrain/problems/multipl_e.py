"""Problems in MultiPL-E's own fields."""

from typing import Annotated

from pydantic import Field

from sandbox.completion import extract_completion
from selftrain.config import MULTIPL_E_LANGUAGES, suggestion
from selftrain.errors import DataError
from selftrain.problems.examples import example_tests
from selftrain.problems.rows import Fields, Row, check_fields
from selftrain.records import Problem

StopToken = Annotated[str, Field(min_length=1)]

_SPELLED = {"go_test.go": "go", "python": "py"}
"""Names in MultiPL-E's `language` field that are not the short name."""


class _Fields(Fields):
    name: str = Field(min_length=1)
    language: str
    prompt: str = Field(min_length=1)
    tests: str = Field(pattern=r"\S")
    stop_tokens: list[StopToken]
    response: str | None = None


def multipl_e_problem(row: Row) -> Problem:
    """The problem in `row`, its split still empty. Raises `DataError`."""
    fields = check_fields(row, _Fields)
    language = check_language(row, _SPELLED.get(fields.language, fields.language))
    response = extract_completion(fields.prompt, fields.response or "", language, fields.stop_tokens)
    return Problem(
        id=f"{fields.name}.{language}",
        task=fields.name,
        language=language,
        prompt=fields.prompt,
        tests=fields.tests,
        split="",
        source=row.source,
        stop_tokens=tuple(fields.stop_tokens),
        response=response or None,
        example_tests=example_tests(fields.prompt, language),
    )


def check_language(row: Row, language: str, field: str = "language") -> str:
    """`language`. Raises `DataError` where MultiPL-E does not know it."""
    if language not in MULTIPL_E_LANGUAGES:
        known = ", ".join(sorted(MULTIPL_E_LANGUAGES))
        raise DataError(
            f"{row.where}: field {field!r}: unknown language {language!r}{suggestion(language, MULTIPL_E_LANGUAGES)}; known: {known}"
        )
    return language
