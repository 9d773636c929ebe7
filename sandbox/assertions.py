"""Tests with one assertion each, to count how many of its assertions a program passes.

Assertions are found by `Language.assertions`, as in `sandbox.twin`. All lines of the other assertions are taken out, so this works
where each assertion has lines of its own, as in MultiPL-E's tests.
"""

from sandbox.languages import Language
from sandbox.lexer import masked
from sandbox.twin import values


def alone(row: Language, tests: str) -> list[str]:
    """`tests` once for each assertion, without the others; empty if fewer than two are found, or if they cannot be taken out."""
    code = masked(tests, row.name).text
    lines, bare = tests.split("\n"), code.split("\n")
    spans = _spans(row, code)
    if len(spans) < 2 or not all(_closed("\n".join(bare[first : last + 1])) for first, last in spans):
        return []
    made = []
    for kept in spans:
        left = list(lines)
        for first, last in spans:
            if (first, last) != kept:
                indent = lines[first][: len(lines[first]) - len(lines[first].lstrip())]
                left[first : last + 1] = [indent + "pass" if row.name == "py" else ""] * (last + 1 - first)
        made.append("\n".join(left))
    return made


def _spans(row: Language, code: str) -> list[tuple[int, int]]:
    """The first and the last line of each assertion in masked `code`, in order; assertions that share a line are one."""
    found = []
    for template in row.assertions:
        names = ("GOT", "WANTED") if "WANTED" in template else ("HOLDS",)
        for places in zip(*(values(template, name, code) for name in names), strict=True):
            if any(_breaks(code[place].strip()) for place in places):
                continue  # two statements, not a value
            start, stop = min(place.start for place in places), max(place.stop for place in places)
            found.append((code.count("\n", 0, start), code.count("\n", 0, stop)))
    spans: list[tuple[int, int]] = []
    for first, last in sorted(found):
        if spans and first <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(last, spans[-1][1]))
        else:
            spans.append((first, last))
    return spans


def _breaks(value: str) -> bool:
    """Whether a line of masked code ends outside brackets."""
    return any(_closed(value[:at]) for at, letter in enumerate(value) if letter == "\n")


def _closed(code: str) -> bool:
    """Whether every bracket that opens in masked `code` closes there, and none else."""
    depth = 0
    for letter in code:
        depth += (letter in "([{") - (letter in ")]}")
        if depth < 0:
            return False
    return depth == 0
