"""Problems in MultiPL-E's own fields."""

from typing import Annotated

from pydantic import Field

from selftrain.config import MULTIPL_E_LANGUAGES, suggestion
from selftrain.errors import DataError
from selftrain.problems.answers import Cleaned, clean
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


def multipl_e_problem(row: Row) -> tuple[Problem, Cleaned]:
    """The problem in `row`, its split still empty, and what became of its response. Raises `DataError`."""
    fields = check_fields(row, _Fields)
    language = check_language(row, _SPELLED.get(fields.language, fields.language))
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
        example_tests=example_tests(fields.prompt, language),
    )
    return problem, cleaned


def check_language(row: Row, language: str, field: str = "language") -> str:
    """`language`. Raises `DataError` where MultiPL-E does not know it."""
    if language not in MULTIPL_E_LANGUAGES:
        known = ", ".join(sorted(MULTIPL_E_LANGUAGES))
        raise DataError(
            f"{row.where}: field {field!r}: unknown language {language!r}{suggestion(language, MULTIPL_E_LANGUAGES)}; known: {known}"
        )
    return language
