"""JSON lines that a command reads and answers line by line, into an output that goes on after a kill.

An answer says which line it answers and what made it (its stamp). The same command again keeps the answers that are there, unless
they answer other lines or something else made them. It answers the lines that have none yet: those that could not be answered,
which may be corrected now, then those behind.
"""

import hashlib
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import IO, Any

from selftrain.errors import DataError, UsageError
from selftrain.launch.ending import ENDING
from selftrain.units import count_of

LONGEST_LINE = 1 << 26
"""Largest number of bytes of an input line."""
BLOCK = 1 << 20
"""Bytes that are read at a time where lines are only counted."""


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


def read_text(name: str) -> str:
    """The text of a file, without a byte order mark. Raises UsageError where it cannot be read."""
    try:
        return Path(name).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{name}: cannot be read as text: {error}") from error


@contextmanager
def reading(source: str, target: str) -> Iterator[IO[bytes]]:
    """Open `source` (- is standard input) for a block that writes `target`. Raises UsageError where one of them fails."""
    try:
        with open(0 if source == "-" else source, "rb", closefd=source != "-") as lines:
            yield lines
    except BrokenPipeError:  # who reads the answers has gone, which is no mistake
        raise
    except OSError as error:
        raise UsageError(f"{source} or {target}: {error.strerror}") from error


def tell(source: str, number: int, wrong: str) -> None:
    """Print what is wrong with a line of `source` (- is standard input)."""
    place = f"line {number}" if source == "-" else f"{source}:{number}"
    print(f"selftrain: {place}: {wrong}", file=sys.stderr)


def read_rows(file: IO[bytes], name: str, done: int = 0) -> Iterator[Row]:
    """The lines that `file` has left, after `done` others; blank lines are left out.

    name  of the file, for messages

    Raises UsageError for a line that is too long.
    """
    number = done
    while text := file.readline(LONGEST_LINE):
        number += 1
        if not text.endswith(b"\n") and len(text) == LONGEST_LINE:
            raise UsageError(
                f"{name}:{number}: the line has more than {LONGEST_LINE >> 20} MiB; expected one JSON object a line"
            )
        if text.strip():
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
    row = _finite(row)
    try:
        return json.dumps(row, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # half of a surrogate pair, which UTF-8 does not have, stays as JSON's escape
        return json.dumps(row).encode() + b"\n"


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

    total   lines of the input
    done    number of the last line that is answered
    bad     answers that are an error
    offset  bytes of the input up to the end of line `done`
    open    (number, bytes of the input before it) of each line up to there that is not blank and has no answer
    """

    total: int
    done: int = 0
    bad: int = 0
    offset: int = 0
    open: tuple[tuple[int, int], ...] = ()


def check_files(source: str | None, target: str | None, fields: str) -> None:
    """Raise UsageError where the file `source` cannot be read, or `target` not written: better told before a model is loaded.

    `None` and - name no file. `fields`: those that the input's lines have, for messages.
    """
    if source not in (None, "-"):
        what = f"expected a file of JSON lines with {fields}"
        if Path(source).is_dir():
            raise UsageError(f"{source} is a folder; {what}")
        if not Path(source).exists():
            raise UsageError(f"{source}: no such file; {what}")
        if not os.access(source, os.R_OK):
            raise UsageError(f"{source}: cannot be read: permission denied")
    if target in (None, "-"):
        return
    if source is not None and Path(source).resolve() == Path(target).resolve():
        raise UsageError(f"{target}: input and output are one file; name another output")
    folder = Path(target).resolve().parent
    if Path(target).is_dir() or not folder.is_dir():
        wrong = "is a folder" if Path(target).is_dir() else f"cannot be written: there is no folder {folder}"
        raise UsageError(f"{target} {wrong}; expected the name of a file to write")
    if not os.access(target if Path(target).exists() else folder, os.W_OK):
        raise UsageError(f"{target}: cannot be written: permission denied")


def go_on(
    source: str,
    target: str,
    maker: Mapping[str, Any],
    stamp: Callable[[dict[str, Any]], Any] = lambda answer: answer,
    every: bool = False,
) -> Before:
    """Prepare to answer the lines of file `source` in file `target`. An answer there that a kill cut short is removed.

    maker  what makes the answers: fields of each stamp
    stamp  answer -> the object with its line, sha256, `maker` and, if it failed, error
    every  whether each line that is not blank gets an answer

    Raises UsageError where a file cannot be read, or `target` answers other lines or was made by something else.
    """
    try:
        there = _answers(target, stamp)
    except OSError as error:
        raise UsageError(f"{target}: cannot be read: {error.strerror}") from error
    _check_maker(there, target, maker)
    ENDING.goes_on = True
    try:
        asked, other = _asked(source, _lines_of(target, there.number, stamp), every)
    except OSError as error:
        raise UsageError(f"{source} or {target}: cannot be read: {error.strerror}") from error
    if other:
        raise UsageError(
            f"{target} answers other lines than those of {source}, line {other} for one; {ADVICE}"
        )
    if there.cut:
        os.truncate(target, there.kept)
    if asked.done:
        print(f"selftrain: {target} has {count_of(there.number, 'answer')}; going on", file=sys.stderr)
    return replace(asked, bad=there.failed)


ADVICE = "name another output, or move that file away to begin anew"


@dataclass
class _Answers:
    """What an output has.

    number  of answers
    failed  answers with an error
    kept    bytes of all answers
    last    the stamp of the last one; empty where there is none
    cut     whether a part of an answer follows
    """

    number: int = 0
    failed: int = 0
    kept: int = 0
    last: dict[str, Any] = field(default_factory=dict)
    cut: bool = False


def _answers(target: str, stamp: Callable[[dict[str, Any]], Any]) -> _Answers:
    """Raises UsageError where the file holds something else."""
    found, last, row = _Answers(), b"", b""
    # What is written to a terminal, a pipe or a device, such as /dev/stdout, cannot be read again: the attempt could wait for ever.
    if not (Path(target).is_file() or Path(target).is_dir()):
        return found
    with open(target, "rb") as file:
        for row in file:
            if row.endswith(b"\n"):
                last = row
                found.number, found.kept = found.number + 1, found.kept + len(row)
                found.failed += b'"error": ' in row and "error" in _stamp(row, stamp)
    found.cut = row != last
    found.last = _stamp(last, stamp)
    if (last and not found.last) or (found.cut and not _cut_short(row, stamp)):
        raise UsageError(f"{target}: not the result of this command; {ADVICE}")
    return found


def _check_maker(there: _Answers, target: str, maker: Mapping[str, Any]) -> None:
    """Raise UsageError where `maker` did not make the last answer."""
    if not there.number:
        return
    _number(there.last, target)
    if unsaid := [name for name in ("sha256", *maker) if name not in there.last]:
        raise UsageError(
            f"{target} does not say by which {', '.join(unsaid)} it was made: another version of selftrain wrote it; {ADVICE}"
        )
    if other := [name for name, value in maker.items() if there.last[name] != value]:
        was, here = (", ".join(f"{name} {of[name]}" for name in other) for of in (there.last, maker))
        raise UsageError(f"{target} was made with {was}, and this is {here}; {ADVICE}")


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


def _lines_of(target: str, count: int, stamp: Callable[[dict[str, Any]], Any]) -> Iterator[tuple[int, Any]]:
    """Number and digest of the line that each of the first `count` answers is of. Raises UsageError for what is no answer."""
    with open(target if count else os.devnull, "rb") as file:
        for row in islice(file, count):
            found = _stamp(row, stamp)
            yield _number(found, target), found.get("sha256")


def _number(stamp: Mapping[str, Any], target: str) -> int:
    """The line that an answer in `target` is of. Raises UsageError where its stamp names none."""
    line = stamp.get("line")
    if not isinstance(line, int) or line < 1:
        raise UsageError(f"{target}: not the result of this command; {ADVICE}")
    return line


def _asked(source: str, answered: Iterator[tuple[int, Any]], every: bool) -> tuple[Before, int]:
    """What of the input is answered, and the first line found that is not the one that was (0: there is none).

    Lines are read up to the last answered one; the others are only counted. An answer to a line that was corrected later stands
    behind those of later lines.
    """
    at = offset = 0
    open_lines: dict[int, tuple[int, str]] = {}
    with open(source, "rb") as file:
        for number, sha256 in answered:
            while at < number and (line := file.readline()):
                at += 1
                if line.strip():
                    open_lines[at] = offset, _digest(line)
                offset += len(line)
            if open_lines.pop(number, (0, ""))[1] != sha256:
                return Before(0), number
            if every and open_lines:
                return Before(0), min(open_lines)
        total, block = at, b"\n"
        while more := file.read(BLOCK):
            total, block = total + more.count(b"\n"), more
    left = tuple((number, start) for number, (start, _) in sorted(open_lines.items()))
    return Before(total + (not block.endswith(b"\n")), at, 0, offset, left), 0
