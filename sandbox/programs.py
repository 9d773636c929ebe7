"""Programs in MultiPL-E's shape: prompt + completion + tests, closed with a marker.

A program that ends before its tests do (`exit(0)` in the completion) exits with code 0 like one that passed.
So the last statement of the tests prints a marker, and without the marker on its own line the verdict is
`wrong_answer`. The marker is a digest of the program, so assembling is deterministic. docs/sandbox.md lists what this does not
detect.
"""

import hashlib
import re
from typing import NamedTuple

from sandbox.languages import language as row_of


class Assembled(NamedTuple):
    """The source of a `Program`, and the line that it prints after its tests (None: no marker)."""

    source: str
    end_marker: str | None


def assemble(language: str, prompt: str, completion: str, tests: str) -> Assembled:
    """`prompt + completion + "\\n" + tests`, with a statement that prints the marker after the tests.

    There is no marker if `tests` do not end as MultiPL-E's do: in C++, Java and C#, for example, with the closing brace
    of `main` (and of its class) and without a `return`. Raises `UsageError` for an unknown language.
    """
    row = row_of(language)
    digest = hashlib.sha256("\0".join((row.name, prompt, completion, tests)).encode("utf-8", "replace"))
    marker = f"end-{digest.hexdigest()[:24]}"
    end = row.end.format(marker=marker)
    if row.closing is None:
        tests = f"{tests}\n{end}\n"
    else:
        closing = re.search(row.closing, tests)
        if closing is None or re.search(r"\breturn\b", tests):
            return Assembled(f"{prompt}{completion}\n{tests}", None)
        apart = " " if end.endswith(">>") else "\n"  # in Haskell the expression has to be on one line
        tests = f"{tests[: closing.start()]}{end}{apart}{closing.group()}"
    return Assembled(f"{prompt}{completion}\n{tests}", marker)
