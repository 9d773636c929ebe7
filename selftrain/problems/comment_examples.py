"""Turns the `>>>` examples in the comments of a prompt, as MultiPL-E writes them, into tests of the problem's language.

    // >>> add(2, 3)
    // 5

MultiPL-E writes arguments and expected values in the literals of the language, so the form of an assertion is taken from the
problem's own tests: its arguments and its expected value are replaced by those of the example. Only in Bash expected lists and
dictionaries are written as in Python (`['"1"', '"2"']`), and are translated to the text that a program prints (`"1 2"`).

Not covered: languages whose assertions name the expected value before the call, and examples without `>>>`.
"""

import ast
import re
from typing import Any, NamedTuple

from sandbox.completion import asked_function

_OPENING, _CLOSING = "([{", ")]}"
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'', re.DOTALL)
_EXAMPLE = re.compile(
    r"^[ \t]*(?P<mark>//|#|--)[ \t]*>>>[ \t]*(?P<call>\S.*)\n[ \t]*(?P=mark)[ \t]*(?P<want>\S.*)$",
    re.MULTILINE,
)
_CALL = re.compile(r"(?:\$\()?(?P<name>[\w.:]+)(?:\(| (?=\"))")
"""Begins the call of an example, up to its first argument: `f(` or, in Bash, `$(f `."""
_COMPARED = re.compile(r"\s*(?:[!=]==?|=|,)\s*|\.\w+\(")
"""Stands between a call and its expected value in an assertion: an operator, a comma or a method such as `.equals(`."""
_NUMBER = re.compile(r"\b\d[\d.]*(?:[eE][-+]?\d+)?")


class _Assertion(NamedTuple):
    """An assertion in parts, whose concatenation it is."""

    before: str
    arguments: str
    between: str
    expected: str
    after: str


class _Example(NamedTuple):
    arguments: str
    expected: str


def comment_example_tests(prompt: str, language: str, tests: str) -> str:
    """`tests` with assertions for the examples in the comments of `prompt` in place of its own; empty where there are none.

    An example is left out if it has kinds of values that no assertion of `tests` has: in a language with static types it would
    not compile. The result is empty also if `tests` has assertions of unknown form, so that it never contains hidden tests.
    """
    examples = [example for match in _EXAMPLE.finditer(prompt) if (example := _example(match, language))]
    name = "candidate" if re.search(r"\bcandidate\b", tests) else asked_function(prompt, language)
    if not examples or not name:
        return ""
    lines = tests.split("\n")
    found = {at: parts for at, line in enumerate(lines) if (parts := _assertion(line, name))}
    if not found:
        return ""
    form = next(iter(found.values()))
    begins = form.before.strip().removesuffix(name).rstrip("( ")
    first, last = min(found), max(found)
    around = lines[:first] + lines[last + 1 :]
    if any(line.strip().startswith(begins) for line in around):
        return ""
    arguments = set[str]().union(*(_kinds(parts.arguments) for parts in found.values()))
    expected = set[str]().union(*(_kinds(parts.expected) for parts in found.values()))
    shown = [
        form._replace(arguments=example.arguments, expected=example.expected)
        for example in examples
        if _kinds(example.arguments) <= arguments and _kinds(example.expected) <= expected
    ]
    made = ["".join(parts) for parts in shown]
    return "\n".join([*lines[:first], *made, *lines[last + 1 :]]) if made else ""


def _example(match: re.Match[str], language: str) -> _Example | None:
    """The example that `_EXAMPLE` has found; None where it is not a call with a literal as its result."""
    call, want = match["call"].rstrip(), match["want"].rstrip()
    head = _CALL.match(call)
    end = closing(call, head.end()) if head else None
    if head is None or end is None or call[end + 1 :].strip() or closing(want, 0) is not None:
        return None
    if language == "sh":
        text = _printed(want)
        if text is None:
            return None
        want = text
    return _Example(call[head.end() : end], want)


def _assertion(line: str, name: str) -> _Assertion | None:
    """The parts of a line that asserts a result of the function `name`; None if it does not, or in another form."""
    head = re.search(rf"\b{re.escape(name)}[( ]", line)
    end = closing(line, head.end()) if head else None
    if head is None or end is None:
        return None
    compared = _COMPARED.match(line, end + 1)
    if compared is None:
        return None
    close = closing(line, compared.end())
    if close is None:
        return None
    expected = line[compared.end() : close]
    value = expected.rstrip()
    after = expected[len(value) :] + line[close:]
    return _Assertion(line[: head.end()], line[head.end() : end], line[end : compared.end()], value, after)


def closing(text: str, at: int) -> int | None:
    """The index of the first bracket from `at` on that closes none that is opened from `at` on; strings are skipped. None: there
    is none."""
    depth = 0
    while at < len(text):
        if string := _STRING.match(text, at):
            at = string.end()
            continue
        depth += (text[at] in _OPENING) - (text[at] in _CLOSING)
        if depth < 0:
            return at
        at += 1
    return None


def _kinds(code: str) -> set[str]:
    """What a literal consists of: the words outside of strings (types, suffixes of numbers), and marks for strings, numbers and
    truth values."""
    words, texts = _STRING.subn(" ", code)
    words, numbers = _NUMBER.subn(" ", words)
    kinds = set(re.findall(r"[A-Za-z_]\w*", words))
    kinds |= {"string"} if texts else set()
    kinds |= {"number"} if numbers else set()
    return {"truth" if kind in ("true", "false") else kind for kind in kinds}


def _printed(want: str) -> str | None:
    """The text that a Bash program prints for an expected value, in double quotes; None where it is no such value.

    Items of a list are apart by blanks, rows of a table by `\\n`, key and value of a dictionary by a comma.
    """
    if want.startswith('"'):
        return want
    try:
        value = ast.literal_eval(want)
        if isinstance(value, dict):
            rows = [f"{_plain(key)},{_plain(item)}" for key, item in value.items()]
            return '"' + "\\n".join(rows) + '"'
        if value and all(isinstance(row, list | tuple) for row in value):
            return '"' + "\\n".join(" ".join(map(_plain, row)) for row in value) + '"'
        return '"' + " ".join(map(_plain, value)) + '"'
    except (ValueError, SyntaxError, TypeError):
        return None


def _plain(value: Any) -> str:
    """A text in double quotes, without them. Raises ValueError for anything else."""
    if not isinstance(value, str) or len(value) < 2 or value[0] + value[-1] != '""':
        raise ValueError
    return value[1:-1]
