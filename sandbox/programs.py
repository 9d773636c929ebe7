"""Programs in MultiPL-E's shape: prompt + completion + tests, closed with a marker.

A program that ends before its tests do, `exit(0)` in the completion, exits with code 0 like one that passed.
So the last statement of the tests prints a marker, and without it on a line of its own the verdict is
`wrong_answer`. The marker is a digest of the program: the same program is always the same text. docs/sandbox.md says
what that does not stop.
"""

import hashlib
import re
from typing import NamedTuple

from sandbox.languages import language as row_of


class Assembled(NamedTuple):
    """The pieces of a `Program`: its source, and the line that it prints once its tests are over."""

    source: str
    end_marker: str | None


def assemble(language: str, prompt: str, completion: str, tests: str) -> Assembled:
    """`prompt + completion + "\\n" + tests`, with a statement that prints the marker once the tests are over.

    There is no marker where `tests` do not end as MultiPL-E's do: in C++, Java and C#, with the closing brace
    of `main` (and of its class), and no `return` before it. Raises `UsageError` for an unknown language.
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
        apart = " " if end.endswith(">>") else "\n"  # Haskell reads what is one expression from one line
        tests = f"{tests[: closing.start()]}{end}{apart}{closing.group()}"
    return Assembled(f"{prompt}{completion}\n{tests}", marker)
