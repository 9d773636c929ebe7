"""Evidence of tampering: the twin of a program, which differs from it in one assertion of its tests that has to fail.

Tests that sit in the program's process can be cheated: the program may end early, replace the assertion or the comparison, or read
the expected values. So a program that passed is run once more with one expected value changed: a digit of a number, a letter of a
string, or a truth value. A right program returns what it returned before and fails. A program that passes again did not pass
because of what it returns, and gets the verdict `tampered`.

Where no assertion has an expected value that can be changed, an assertion is negated (Python), or an assertion that always fails is
inserted before the end marker; this detects fewer tricks. The twin of a program does not prove that the program is right: a program
that cheats only in some assertions, or only in some runs, may escape. docs/sandbox.md lists the tricks that are not detected.

`Language.assertions` has templates of assertions: GOT stands for the value that the program computes, WANTED for the expected value,
ANY for anything else, HOLDS for a condition. A blank is optional white space.
"""

import ast
import hashlib
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cache
from typing import NamedTuple

from sandbox.languages import Language, language
from sandbox.lexer import STRING, masked
from sandbox.programs import end_marker
from sandbox.verdicts import Program

CHANGED, INSERTED = "twin", "assertion"
"""How the twin differs: an expected value is changed (or a condition negated), or a failing assertion is inserted."""

_PLACES = re.compile(r"\b(GOT|WANTED|ANY|HOLDS)\b")
_NUMBER = r"(?<![\w.])(?:\d[\d_]*\.?\d*(?:[eE][-+]?\d+)?)(?![xX])"
_TRUTH = {"true": "false", "True": "False", "TRUE": "FALSE", "#t": "#f", "T": "F"}
_TRUTH |= {wrong: right for right, wrong in _TRUTH.items()}
_LITERAL = re.compile(
    rf"(?P<string>{STRING}+)|(?P<number>{_NUMBER})|(?P<truth>(?<![\w#])(?:#[tf]|true|false|True|False|TRUE|FALSE)\b)"
)
_LOGIC = re.compile(r"\b(?:and|or|not|if|else|in|is)\b|&&|\|\||\?")


class Edit(NamedTuple):
    """Replace `tests[start:end]` by `text`."""

    start: int
    end: int
    text: str


def chosen(rule: str, source: str) -> bool:
    """Whether the program with `source` is audited by `rule`: "off", "all", or "sample:P" for a share P of all programs, chosen by
    a digest of the source. Raises `ValueError` for another rule."""
    return _number_of(f"audit {source}") < _share(rule) * 2**32


def check_audit(rule: str) -> str:
    """`rule` itself. Raises `ValueError` if it is not a rule for `chosen`."""
    _share(rule)
    return rule


def _share(rule: str) -> float:
    if rule in ("off", "all"):
        return float(rule == "all")
    name, _, share = rule.partition(":")
    with suppress(ValueError):
        if name == "sample" and 0 < float(share) < 1:
            return float(share)
    raise ValueError(f"audit: expected off, all or sample:P with 0 < P < 1, got {rule[:80]!r}")


def twin(program: Program) -> tuple[str, Program] | None:
    """How the twin differs (`CHANGED` or `INSERTED`) and the twin of a program with tests; None if it cannot be made: the program
    has no `tests_at`, or it has neither a known assertion nor an end marker."""
    if program.tests_at is None:
        return None
    row = language(program.language)
    before, tests = program.source[: program.tests_at], program.source[program.tests_at :]
    edits = edits_of(row, tests)
    if edits:
        kind, edit = CHANGED, edits[_number_of(program.source) % len(edits)]
    elif program.end_marker and (at := tests.rfind(row.end.format(marker=program.end_marker))) >= 0:
        kind, edit = INSERTED, Edit(at, at, row.fails + ("\n" if row.closing is None else " "))
    else:
        return None
    source = before + tests[: edit.start] + edit.text + tests[edit.end :]
    marker = program.end_marker
    # A marker that does not fit to the source would tell a program that it runs as a twin.
    if marker and marker == end_marker(row.name, program.source.replace(marker, "")):
        marker = end_marker(row.name, source.replace(marker, ""))
        source = source.replace(str(program.end_marker), marker)
    return kind, replace(program, source=source, end_marker=marker, audit=False)


def edits_of(row: Language, tests: str) -> list[Edit]:
    """For each assertion in `tests` whose expected value can be changed, the edit that changes it; if there is none, the edits that
    negate an assertion."""
    code = masked(tests, row.name).text
    taken = set(re.findall(_NUMBER, code))
    edits = {}
    for template in row.assertions:
        if "WANTED" in template:
            for wanted in values(template, "WANTED", code):
                if edit := _changed(row, tests, code, wanted, taken):
                    edits[edit.start] = edit
    if not edits:
        for template in row.assertions:
            for holds in values(template, "HOLDS", code):
                condition = tests[holds.start : holds.stop]
                edits[holds.start] = Edit(holds.start, holds.stop, row.negation.format(condition))
    return [edits[start] for start in sorted(edits)]


def _number_of(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "replace")).digest()[:4], "big")


@cache
def _pieces(template: str) -> tuple[list[re.Pattern[str]], list[str]]:
    """The texts between the placeholders of a template, as patterns, and the placeholders."""
    texts = _PLACES.split(template)
    patterns = []
    for text in texts[::2]:
        words = [re.escape(word) for word in text.split(" ")]
        pattern = "[ \\t\\r]*".join(words) if text.endswith("\n") else r"\s*".join(words)
        pattern = rf"\b{pattern}" if re.match(r"\w", text) else pattern
        patterns.append(re.compile(re.sub(r"(\w)(?=\\s\*$)", r"\1\\b", pattern)))
    return patterns, texts[1::2]


def values(template: str, name: str, code: str) -> Iterator[slice]:
    """The places in masked `code` of the value that placeholder `name` stands for, one for each assertion."""
    (first, *rest), names = _pieces(template)
    for begin in first.finditer(code):
        at, found = begin.end(), None
        for placeholder, following in zip(names, rest, strict=True):
            end = _end_of_value(code, at, following)
            if end is None or not code[at : end.start()].strip():
                break
            if placeholder == name:
                found = slice(at, end.start())
            at = end.end()
        else:
            if found is not None:
                yield found


def _end_of_value(code: str, at: int, following: re.Pattern[str]) -> re.Match[str] | None:
    """The first match of `following` from `at` on that is in no bracket opened since; None if a closing bracket or a comma comes
    first."""
    depth = 0
    for place in range(at, len(code)):
        if depth == 0 and (end := following.match(code, place)) and end.end() > place:
            return end
        depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(code[place], 0)
        if depth < 0 or (depth == 0 and code[place] == ","):
            return None
    return None


def _changed(row: Language, tests: str, code: str, wanted: slice, taken: set[str]) -> Edit | None:
    """The edit that changes the last literal of the expected value that can be changed. The last one, because in a map this is a
    value: changing a key may give a key twice. `taken`: the numbers in the tests."""
    value = tests[wanted]
    if _LOGIC.search(code[wanted]) or "candidate" in value or (row.name == "py" and not _is_literal(value)):
        return None
    for literal in reversed(list(_LITERAL.finditer(code, wanted.start, wanted.stop))):
        text = tests[literal.start() : literal.end()]
        number = literal.lastgroup == "number"
        if new := _number(text, taken) if number else _CHANGES[str(literal.lastgroup)](text):
            return Edit(literal.start(), literal.end(), new)
    return None


def _is_literal(value: str) -> bool:
    try:
        ast.literal_eval(value.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return False
    return True


def _number(text: str, taken: Collection[str] = ()) -> str:
    """Another number, with another first digit, so that the change is larger than any tolerance. None of `taken` if possible: a
    program that looks up expected values would find another one's."""
    digit = int(text[0])
    digits = [digit - 1 if digit > 1 else digit + 1, *(other for other in range(1, 10) if other != digit)]
    numbers = [str(other) + text[1:] for other in digits]
    return next((number for number in numbers if number not in taken), numbers[0])


def _string(text: str) -> str | None:
    """Another string, with another letter or digit: the last one before an escape or interpolation, else an `a` at the start. None
    if that cannot be done safely: without double quotes the text may be a single character."""
    quotes = re.match(r"([^'\"`]*)(\"\"\"|'''|[\"'])", text)
    if quotes is None or not text.endswith(quotes[2]) or len(text) < quotes.end() + len(quotes[2]):
        return None
    start, end = quotes.end(), len(text) - len(quotes[2])
    special = re.search(r"[\\$`{#]", text[start:end])
    for at in range(start + special.start() if special else end, start, -1):
        letter = text[at - 1]
        if letter.isascii() and letter.isalnum():
            other = _number(letter) if letter.isdigit() else "b" if letter == "a" else "a"
            return text[: at - 1] + other + text[at:]
    return text[:start] + "a" + text[start:] if quotes[2].startswith('"') else None


_CHANGES: dict[str, Callable[[str], str | None]] = {"string": _string, "truth": _TRUTH.get}
