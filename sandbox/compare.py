"""The rules by which a program's output is compared with the expected output.

    exact           byte for byte
    lines           line by line, without whitespace at the ends of lines and blank lines at the end; the default
    tokens          word by word, split at whitespace; line breaks do not matter
    float:1e-6      as `tokens`, but a number may differ from the expected number by 1e-6, absolutely or relatively, and
                    be written in another form (1.5, +1.50, 15e-1). Two integers have to be equal (007 is 7, -0 is 0), however
                    large. NaN equals only the same word; an infinity also equals its other spellings
    code-contests   CodeContests' own rule: as `tokens`, ignoring case; two numbers are read as doubles and may differ by
                    less than 1e-5, absolutely. So integers from 2^53 on are equal if they round to the same double, and numbers
                    beyond 1.8e308 are equal only if their digits are the same

With the suffix `,nocase` (`lines,nocase`, `tokens,nocase`, `float:1e-6,nocase`) the case of ASCII letters is ignored.
A number is a decimal number in C's syntax, in ASCII digits: `1_000`, `0x10` and digits of other scripts are words.
"""

import math
import re
from collections.abc import Iterator
from contextlib import suppress

from sandbox.encoding import encoded

DEFAULT_RULE = "lines"
CODE_CONTESTS = "code-contests"

_NOCASE = ",nocase"
_FLOAT = "float:"
_KNOWN = (
    f"exact, lines, tokens, float:TOLERANCE (each but exact also with {_NOCASE} behind it), {CODE_CONTESTS}"
)
_CODE_CONTESTS_APART = 1e-5  # two numbers are equal under code-contests if they differ by less
_EXACT = 2.0**53
"""Doubles represent all integers below this number exactly."""
_ROUNDING = 1 + 1e-9
"""Factor on the tolerance, because of rounding: in doubles 0.333334 - 0.333333 is slightly more than 1e-6."""


def check_rule(rule: str) -> str:
    """Return `rule` unchanged. Raises `ValueError` if there is no such rule."""
    if rule in ("exact", CODE_CONTESTS):
        return rule
    plain = rule.removesuffix(_NOCASE)
    if plain in ("lines", "tokens"):
        return rule
    if plain.startswith(_FLOAT):
        with suppress(ValueError):
            number = plain.removeprefix(_FLOAT).encode()
            [(tolerance, _)] = _numbers([(number, number)])
            if 0 < tolerance < math.inf:
                return rule
    raise ValueError(f"unknown rule to compare output by: {rule[:80]!r}; known: {_KNOWN}")


def same(rule: str, got: bytes, expected: str) -> bool:
    """Whether output `got` equals `expected` by `rule`. Raises `ValueError` for an unknown rule."""
    check_rule(rule)
    wanted = encoded(expected, nothing=b"\xed\xa0\x80")  # bytes that no text encodes to
    if got == wanted or rule == "exact":
        return got == wanted
    if rule.endswith(_NOCASE) or rule == CODE_CONTESTS:
        got, wanted, rule = got.lower(), wanted.lower(), rule.removesuffix(_NOCASE)
    if rule == "lines":
        return _lines(got) == _lines(wanted)
    words = wanted.split()
    found = got.split(None, len(words))  # no further: a program may print millions where one is expected
    if len(found) != len(words):
        return False
    different = [pair for pair in zip(found, words, strict=True) if pair[0] != pair[1]]
    if rule == "tokens":
        return not different
    try:
        if rule == CODE_CONTESTS:
            return all(abs(one - other) < _CODE_CONTESTS_APART for one, other in _numbers(different))
        return _within(float(rule.removeprefix(_FLOAT)), different)
    except ValueError:
        return False


Pair = tuple[bytes, bytes]
"""A token of the output, and the token that is expected in its place."""


def _lines(data: bytes) -> list[str]:
    return [line.rstrip() for line in data.decode("utf-8", "surrogateescape").rstrip().split("\n")]


def _within(tolerance: float, pairs: list[Pair]) -> bool:
    """Whether the two numbers of each pair are the same integer, the same infinity, or within the tolerance. Raises `ValueError`
    if a token is not a number."""
    for pair, (one, other) in zip(pairs, _numbers(pairs), strict=True):
        if one == other and abs(one) < _EXACT:
            continue
        if all(wholes := [_whole(token) for token in pair]):
            near = wholes[0] == wholes[1]
        elif math.isinf(one) or math.isinf(other):
            # With digits it is not an infinity but a number too large for a double, as 1e400.
            near = one == other and not re.search(rb"[0-9]", b"".join(pair))
        else:
            near = abs(one - other) <= tolerance * max(1.0, abs(other)) * _ROUNDING  # of NaN it is False
        if not near:
            return False
    return True


def _numbers(pairs: list[Pair]) -> Iterator[tuple[float, float]]:
    """The pairs of tokens as pairs of numbers. Raises `ValueError` if a token is not a number."""
    columns = [[one for one, _ in pairs], [other for _, other in pairs]]
    if any(b"_" in b" ".join(column) for column in columns):
        raise ValueError("Python would read 1_000")
    # For a million tokens, map takes a third of the time of a loop.
    return zip(*(map(float, column) for column in columns), strict=True)


def _whole(token: bytes) -> bytes:
    """An integer token in canonical form (no leading zeros, no plus sign); empty for other tokens. It works on the text, because
    Python's `int` refuses more than 4,300 digits."""
    digits = token[1:] if token[:1] in (b"+", b"-") else token
    if not digits.isdigit():
        return b""
    digits = digits.lstrip(b"0")
    return b"-" + digits if digits and token[:1] == b"-" else digits or b"0"
