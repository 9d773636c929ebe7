"""Assembles a program from MultiPL-E's prompt, completion and tests, with a marker that it prints at its end.

A program that ends before its tests do (`exit(0)` in the completion) exits with code 0, like a program that passed. So `assemble`
adds a last statement to the tests that prints a marker, and if the program does not print the marker on its own line, the verdict
is `wrong_answer`. The marker is a digest of the program, so `assemble` is deterministic. docs/sandbox.md lists the cheats that
the marker does not detect.
"""

import hashlib
import re
from typing import NamedTuple

from sandbox.languages import language as row_of
from sandbox.verdicts import Limits, Program


class Assembled(NamedTuple):
    """The source of a `Program`; the end marker, a line that it prints after its tests (None: no marker); and the offset in the
    source at which the tests begin."""

    source: str
    end_marker: str | None
    tests_at: int

    def program(self, id: str, language: str, limits: Limits | None = None, audit: bool = False) -> Program:
        """The `Program` with this source."""
        return Program(
            id, language, self.source, (), self.end_marker, limits, tests_at=self.tests_at, audit=audit
        )


def assemble(language: str, prompt: str, completion: str, tests: str) -> Assembled:
    """`prompt + completion + "\\n" + tests`, with a statement that prints the marker after the tests.

    In languages whose tests end inside a function or class, there is no marker if `tests` contain a `return` or do not end as
    MultiPL-E's tests do (in C++, for example, with the closing brace of `main`). Raises `UsageError` for an unknown language.
    """
    row = row_of(language)
    before, (first, last) = f"{prompt}{completion}\n", (f"{tests}\n", "\n")
    if row.closing:
        closing = re.search(row.closing, tests)
        if closing is None or re.search(r"\breturn\b", tests):
            return Assembled(before + tests, None, len(before))
        apart = " " if row.end.endswith(">>") else "\n"  # in Haskell the expression has to be on one line
        first, last = tests[: closing.start()], apart + closing.group()
    marker = end_marker(row.name, before + first + row.end.format(marker="") + last)
    return Assembled(before + first + row.end.format(marker=marker) + last, marker, len(before))


def end_marker(language: str, source: str) -> str:
    """The end marker of the program that is `source` where its marker is left out."""
    digest = hashlib.sha256(f"{language}\0{source}".encode("utf-8", "replace"))
    return f"end-{digest.hexdigest()[:24]}"
