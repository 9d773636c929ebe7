"""Whether what a program printed is what it had to print, by the rule of its problem.

    exact           byte for byte
    lines           line by line, without whitespace at the ends of lines and blank lines at the end; the default
    tokens          the words between whitespace; how they are spread over lines does not matter
    float:1e-6      tokens, but a number may be off by 1e-6, absolutely or relative to the expected one, and be written in
                    another way (1.5, +1.50, 15e-1). Two whole numbers have to be the same number (007 is 7, -0 is 0), however
                    large. NaN is equal to nothing but the same word, an infinity to the other ways of writing it
    code-contests   CodeContests' own: tokens, case ignored, and where both are numbers they are read as doubles and may be
                    less than 1e-5 apart, absolutely. So whole numbers from 2^53 on are equal where they round to the same
                    double, and beyond 1.8e308 none are, but for the same digits

With `,nocase` behind it (`lines,nocase`, `tokens,nocase`, `float:1e-6,nocase`) the case of ASCII letters is ignored.
A number is what C reads in decimal, in ASCII digits: `1_000`, `0x10` and other scripts' digits are words.
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
_CODE_CONTESTS_APART = 1e-5
_EXACT = 2.0**53
"""Below it every whole number is a double."""
_ROUNDING = 1 + 1e-9
"""0.333334 - 0.333333 is a little more than 1e-6 in doubles."""


def check_rule(rule: str) -> str:
    """`rule`. Raises `ValueError` where there is no such rule."""
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
    raise ValueError(f"unknown rule to compare output by: {rule!r}; known: {_KNOWN}")


def same(rule: str, got: bytes, expected: str) -> bool:
    """Whether output `got` is the `expected` one by `rule`. Raises `ValueError` for an unknown rule."""
    check_rule(rule)
    wanted = encoded(expected, nothing=b"\xed\xa0\x80")  # which is in no text
    if got == wanted or rule == "exact":
        return got == wanted
    if rule.endswith(_NOCASE) or rule == CODE_CONTESTS:
        got, wanted, rule = got.lower(), wanted.lower(), rule.removesuffix(_NOCASE)
    if rule == "lines":
        return _lines(got) == _lines(wanted)
    words = wanted.split()
    found = got.split(None, len(words))  # a program may print millions where one is expected
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
"""A token that was printed, and the one that is expected in its place."""


def _lines(data: bytes) -> list[str]:
    return [line.rstrip() for line in data.decode("utf-8", "surrogateescape").rstrip().split("\n")]


def _within(tolerance: float, pairs: list[Pair]) -> bool:
    """Whether each pair is the same whole number, the same infinity, or within the tolerance. Raises `ValueError` for words."""
    for pair, (one, other) in zip(pairs, _numbers(pairs), strict=True):
        if one == other and abs(one) < _EXACT:
            continue
        if all(wholes := [_whole(token) for token in pair]):
            near = wholes[0] == wholes[1]
        elif math.isinf(one) or math.isinf(other):
            near = one == other and not re.search(
                rb"[0-9]", b"".join(pair)
            )  # 1e400 is only too large for a double
        else:
            near = abs(one - other) <= tolerance * max(1.0, abs(other)) * _ROUNDING  # of NaN it is False
        if not near:
            return False
    return True


def _numbers(pairs: list[Pair]) -> Iterator[tuple[float, float]]:
    """The numbers that tokens are. Raises `ValueError` for words."""
    columns = [[one for one, _ in pairs], [other for _, other in pairs]]
    if any(b"_" in b" ".join(column) for column in columns):
        raise ValueError("Python would read 1_000")
    # By map, which reads a million of them in a third of the time of a loop.
    return zip(*(map(float, column) for column in columns), strict=True)


def _whole(token: bytes) -> bytes:
    """The one way to write the whole number that a token is; empty where it is none. By its digits: Python reads no more than
    4,300 of them."""
    digits = token[1:] if token[:1] in (b"+", b"-") else token
    if not digits.isdigit():
        return b""
    digits = digits.lstrip(b"0")
    return b"-" + digits if digits and token[:1] == b"-" else digits or b"0"
