"""JSON lines that a command reads and answers line by line, into an output that goes on after a kill.

An answer says which line it answers and what made it (its stamp). The same command again keeps the answers that are there and goes
on behind the last one, unless they answer other lines or something else made them.
"""

import hashlib
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from selftrain.errors import DataError, UsageError

LONGEST_LINE = 1 << 26
"""Largest number of bytes of an input line."""


@dataclass(frozen=True)
class Row:
    """A line of the input that is not blank.

    number  of the line in the input, from 1
    sha256  first digits of the digest of the line, by which a command that goes on knows that the input is the same
    fields  the object in the line
    wrong   why there is none; empty where there is one
    """

    number: int
    sha256: str
    fields: dict[str, Any] = field(default_factory=dict)
    wrong: str = ""


def read_rows(file: IO[bytes], name: str, done: int = 0) -> Iterator[Row]:
    """The lines of `file` after the first `done`; blank lines are left out.

    name  of the file, for messages

    Raises UsageError for a line that is too long.
    """
    number = 0
    while text := file.readline(LONGEST_LINE):
        number += 1
        if not text.endswith(b"\n") and len(text) == LONGEST_LINE:
            raise UsageError(
                f"{name}:{number}: the line has more than {LONGEST_LINE >> 20} MiB; expected one JSON object a line"
            )
        if number > done and text.strip():
            yield Row(number, _digest(text), *_parsed(text, name, number))


def _digest(line: bytes) -> str:
    return hashlib.sha256(line.strip()).hexdigest()[:12]


def _parsed(text: bytes, name: str, number: int) -> tuple[dict[str, Any], str]:
    """The object in a line, and why there is none."""
    from selftrain.problems.rows import parse_json

    try:
        row = _finite(parse_json(text.decode("utf-8-sig").strip(), Path(name), number))
    except UnicodeDecodeError as error:
        return {}, f"not UTF-8 ({error.reason})"
    except DataError as error:
        return {}, str(error).removeprefix(f"{name}:{number}: ")
    except RecursionError:  # of `_finite`, which takes more than the parser
        return {}, "JSON nested too deeply"
    return (row, "") if isinstance(row, dict) else ({}, "expected a JSON object")


def encoded(row: dict[str, Any]) -> bytes:
    """A row as a line of JSON; a number that is not finite, which JSON does not have, is null."""
    return json.dumps(_finite(row), ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def _finite(value: Any) -> Any:
    """`value` with None in place of NaN and infinity."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class Before:
    """What an output has already.

    total  lines of the input
    done   number of the last line that is answered
    bad    lines up to there that have no answer, or an error as answer
    """

    total: int
    done: int = 0
    bad: int = 0


def go_on(
    source: str,
    target: str,
    maker: Mapping[str, Any],
    stamp: Callable[[dict[str, Any]], Any] = lambda answer: answer,
) -> Before:
    """Prepare to answer the lines of file `source` in file `target`. An answer there that a kill cut short is removed.

    maker  what makes the answers: fields of each stamp
    stamp  answer -> the object with its line, sha256, `maker` and, if it failed, error

    Raises UsageError where a file cannot be read, or `target` answers other lines or was made by something else.
    """
    if Path(source).resolve() == Path(target).resolve():
        raise UsageError(f"{target}: input and output are one file; name another output")
    if Path(source).is_fifo():
        raise UsageError(
            f"{source}: a pipe can be read only once; save it as a file, or answer to standard output"
        )
    try:
        with open(source, "rb") as lines:
            total = sum(1 for _ in lines)
    except OSError as error:
        raise UsageError(f"{source}: cannot be read: {error.strerror}") from error
    try:
        before = _before(source, target, maker, stamp, total)
    except OSError as error:
        raise UsageError(f"{target}: cannot be read: {error.strerror}") from error
    if before.done:
        print(f"selftrain: {target} has the first {before.done} lines; going on", file=sys.stderr)
    return before


def _before(
    source: str,
    target: str,
    maker: Mapping[str, Any],
    stamp: Callable[[dict[str, Any]], Any],
    total: int,
) -> Before:
    if not Path(target).exists():
        return Before(total)
    last, row, answers, failed, kept = b"", b"", 0, 0, 0
    with open(target, "rb") as file:
        for row in file:
            if row.endswith(b"\n"):
                last, answers, kept = row, answers + 1, kept + len(row)
                failed += b'"error": ' in row and "error" in _stamp(row, stamp)
    foreign = UsageError(f"{target}: not the result of this command; name another output")
    if row != last and not _cut_short(row, stamp):
        raise foreign
    done = 0
    if last:
        said = _stamp(last, stamp)
        line = said.get("line")
        if not isinstance(line, int) or line < 1:
            raise foreign
        other = [name for name, value in maker.items() if said.get(name) != value]
        if other:
            there, here = (", ".join(f"{name} {of.get(name)}" for name in other) for of in (said, maker))
            raise UsageError(f"{target} was made with {there}, and this is {here}; name another output")
        done = line
        asked, digest = _lines_to(source, done)
        if said.get("sha256") != digest:
            raise UsageError(f"{target} answers other lines than those of {source}; name another output")
        failed += asked - answers
    if kept < Path(target).stat().st_size:
        os.truncate(target, kept)
    return Before(total, done, failed)


def _cut_short(row: bytes, stamp: Callable[[dict[str, Any]], Any]) -> bool:
    """Whether `row`, a last line without an end, may be an answer. A whole object that is none is another program's file."""
    try:
        json.loads(row)
    except ValueError:
        return row.startswith(b'{"'[: len(row)])
    return "sha256" in _stamp(row, stamp)


def _stamp(row: bytes, stamp: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    try:
        found = json.loads(row)
    except ValueError:
        return {}
    found = stamp(found) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def _lines_to(source: str, number: int) -> tuple[int, str]:
    """How many of the first `number` lines are not blank, and the digest of the last of them."""
    found, line = 0, b""
    with open(source, "rb") as file:
        for at, line in enumerate(file, 1):
            found += bool(line.strip())
            if at == number:
                return found, _digest(line)
    return found, ""
