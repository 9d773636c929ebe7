"""Reads rows of CodeContests: a description, and test cases with an input and its expected output."""

import hashlib
import re
from collections.abc import Sequence
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from sandbox.compare import CODE_CONTESTS
from selftrain.problems.rows import Entry, Fields, MemoryLimit, Row, TimeLimit, check_fields
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
"""Language -> the first line of a program (often empty), and the characters that start a comment line."""

SOLUTION_LANGUAGES = {"2": "cpp", "3": "py", "4": "java", "CPP": "cpp", "PYTHON3": "py", "JAVA": "java"}
"""CodeContests' code or name of a language -> the sandbox's name. Python 2 (`PYTHON`, 1) and unknown (0) are not used."""

PICTURE = re.compile(r"(?i)<image>|<img\b|!\[[^\]\n]*\]\(")
"""A picture in a description: CodeContests' placeholder, HTML or Markdown."""

# Reasons for leaving a problem out.
FILES = "reads or writes files"
PICTURES = "refers to a picture"
NO_CASES = "has no test cases"

_TASK = "Read the input from standard input and print the answer to standard output."


class _Columns(Fields):
    """Two lists of equal length."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        (one, first), (other, second) = self
        if len(first) != len(second):
            raise ValueError(f"{len(first)} {one}s and {len(second)} {other}s; expected as many of each")
        return self


class _Tests(_Columns):
    input: list[str] = Field(default_factory=list)
    output: list[str] = Field(default_factory=list)


class _Solutions(_Columns):
    language: list[int | str] = Field(default_factory=list)
    solution: list[str] = Field(default_factory=list)


def _columns(value: Any) -> Any:
    """A list of objects as one object of lists, the format of the data set's loader; None as an empty object."""
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        return {} if value is None else value
    return {
        name: [item.get(name) for item in value]
        for name in dict.fromkeys(key for item in value for key in item)
    }


Tests = Annotated[_Tests, BeforeValidator(_columns)]
Solutions = Annotated[_Solutions, BeforeValidator(_columns)]


class _Fields(Fields):
    name: str = Field(min_length=1)
    description: str = Field(pattern=r"\S")
    public_tests: Tests
    private_tests: Tests = _Tests()
    generated_tests: Tests = _Tests()
    solutions: Solutions = _Solutions()
    time_limit: TimeLimit = None
    memory_limit_bytes: MemoryLimit = None
    input_file: str | None = None
    output_file: str | None = None


def contest(row: Row, languages: Sequence[str], max_cases: int, pictures: bool, references: int) -> Entry:
    """The task in `row` as a problem in each of `languages`, with an empty split. Raises `DataError` for invalid fields.

    `max_cases`, `pictures` and `references` are those of `selftrain.config.ContestsConfig`.
    """
    fields = check_fields(row, _Fields)
    tests = (fields.public_tests, fields.private_tests, fields.generated_tests)
    pairs = dict.fromkeys(pair for group in tests for pair in zip(group.input, group.output, strict=True))
    for reason, applies in (
        (FILES, fields.input_file or fields.output_file),
        (PICTURES, not pictures and PICTURE.search(fields.description)),
        (NO_CASES, not pairs),
    ):
        if applies:
            return Entry(fields.name, left_out=reason)
    cases = tuple({"stdin": stdin, "stdout": stdout} for stdin, stdout in list(pairs)[:max_cases])
    right: dict[str, list[str]] = {}
    for code, solution in zip(fields.solutions.language, fields.solutions.solution, strict=True):
        right.setdefault(SOLUTION_LANGUAGES.get(str(code).upper(), ""), []).append(solution)
    problems = tuple(
        Problem(
            id=f"{fields.name}.{language}",
            task=fields.name,
            language=language,
            prompt=contest_prompt(fields.description, language),
            tests="",
            split="",
            source=row.source,
            cases=cases,
            response=right.get(language, [None])[0],
            compare=CODE_CONTESTS,
            time_limit=fields.time_limit,
            memory_limit_bytes=fields.memory_limit_bytes,
        )
        for language in languages
    )
    # Choose references from the languages in turn: the first of each language, then the second of each, ...
    distinct = {language: list(dict.fromkeys(right.get(language, ()))) for language in languages}
    rounds = range(references)
    in_turn = [(language, texts[at]) for at in rounds for language, texts in distinct.items() if texts[at:]]
    chosen: dict[str, tuple[str, ...]] = {}
    for language, text in in_turn[:references]:
        chosen[language] = (*chosen.get(language, ()), text)
    digest = hashlib.sha256(fields.description.encode()).hexdigest()[:8]
    return Entry(fields.name, problems, chosen, where=row.where, digest=digest)


def contest_prompt(description: str, language: str) -> str:
    """The prompt: the description as a comment. The completion is a complete program after it."""
    if language == "php":
        description = description.replace("?>", "? >")  # in PHP `?>` ends the code, even in a comment
    if language == "java":
        description = description.replace("\\u", "\\ u")  # javac decodes \uXXXX before it parses comments
    opening, comment = COMMENTS[language]
    lines = [*description.strip().splitlines(), "", _TASK]
    return opening + "".join(f"{comment} {line.rstrip()}".rstrip() + "\n" for line in lines)
