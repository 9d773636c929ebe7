"""Problems as CodeContests has them: a description, and what a program has to print for which input."""

from collections.abc import Iterator, Sequence
from typing import Self

from pydantic import Field, model_validator

from selftrain.errors import DataError, UsageError
from selftrain.problems.rows import Fields, Row, check_fields
from selftrain.records import Problem

COMMENTS = {
    "py": ("", "#"),
    "cpp": ("", "//"),
    "java": ("", "//"),
    "php": ("<?php\n", "//"),
    "ts": ("", "//"),
    "cs": ("", "//"),
    "sh": ("#!/bin/bash\n", "#"),
    "js": ("", "//"),
}
"""By language: what a program begins with, and what begins a comment line."""

SOLUTION_LANGUAGES: dict[int | str, str] = {
    2: "cpp",
    3: "py",
    4: "java",
    "CPP": "cpp",
    "PYTHON3": "py",
    "JAVA": "java",
}
"""CodeContests' codes and names. 0 (unknown) and 1 (Python 2) are nothing that runs here."""

_TASK = "Read the input from standard input and print the answer to standard output."


class _Tests(Fields):
    input: list[str] = Field(default_factory=list)
    output: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.input) != len(self.output):
            raise ValueError(
                f"{len(self.input)} inputs and {len(self.output)} outputs; expected as many of each"
            )
        return self


class _Solutions(Fields):
    language: list[int | str] = Field(default_factory=list)
    solution: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.language) != len(self.solution):
            raise ValueError(
                f"{len(self.language)} languages and {len(self.solution)} solutions; expected as many of each"
            )
        return self


class _Fields(Fields):
    name: str = Field(min_length=1)
    description: str = Field(pattern=r"\S")
    public_tests: _Tests
    private_tests: _Tests = _Tests()
    generated_tests: _Tests = _Tests()
    solutions: _Solutions = _Solutions()
    input_file: str | None = None
    output_file: str | None = None


def contest_problems(row: Row, languages: Sequence[str], max_cases: int) -> Iterator[Problem]:
    """The problem in `row`, once in each of `languages`, its split still empty.

    A problem whose programs have to read or write files is left out. Raises `DataError`, and `UsageError` for a language
    that `COMMENTS` does not have.
    """
    fields = check_fields(row, _Fields)
    if fields.input_file or fields.output_file:
        return
    tests = (fields.public_tests, fields.private_tests, fields.generated_tests)
    pairs = dict.fromkeys(pair for group in tests for pair in zip(group.input, group.output, strict=True))
    if not pairs:
        raise DataError(
            f"{row.where}: {fields.name!r} has no test cases; take the row out, or name it in `problems.exclude`"
        )
    cases = tuple({"stdin": stdin, "stdout": stdout} for stdin, stdout in list(pairs)[:max_cases])
    answers: dict[str, str] = {}
    for code, solution in zip(fields.solutions.language, fields.solutions.solution, strict=True):
        answers.setdefault(SOLUTION_LANGUAGES.get(code, ""), solution)
    for language in languages:
        yield Problem(
            id=f"{fields.name}.{language}",
            task=fields.name,
            language=language,
            prompt=contest_prompt(fields.description, language),
            tests="",
            split="",
            source=row.source,
            cases=cases,
            response=answers.get(language),
        )


def contest_prompt(description: str, language: str) -> str:
    """The description as a comment that a whole program follows. Raises `UsageError` for an unknown language."""
    if language not in COMMENTS:
        raise UsageError(
            f"contest problems are not written in language {language!r}; known: {', '.join(COMMENTS)}"
        )
    if language == "php":
        description = description.replace("?>", "? >")  # it would end the program, in a comment too
    if language == "java":
        description = description.replace("\\u", "\\ u")  # javac reads \uXXXX before it knows of comments
    opening, comment = COMMENTS[language]
    lines = [*description.strip().splitlines(), "", _TASK]
    return opening + "".join(f"{comment} {line.rstrip()}".rstrip() + "\n" for line in lines)
