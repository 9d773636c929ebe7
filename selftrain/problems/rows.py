"""Reads and checks rows of problem files, with the file and line of each row, and hashes the files' content."""

import glob
import gzip
import hashlib
import json
import re
import reprlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from errno import ENAMETOOLONG
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from sandbox.verdicts import LARGEST_BYTES, LONGEST_SECONDS
from selftrain.config import suggestion
from selftrain.errors import DataError
from selftrain.problems.answers import Cleaned
from selftrain.records import Problem

SUFFIXES = (".json", ".jsonl", ".json.gz", ".jsonl.gz")
"""Suffixes of problem files."""

_DECOMPRESS = "decompress it first, or compress it with gzip and name it .jsonl.gz"
_KINDS = {
    b"\x1f\x8b": ("gzip data", "name it .jsonl.gz"),
    b"\x28\xb5\x2f\xfd": ("Zstandard data", _DECOMPRESS),
    b"BZh": ("bzip2 data", _DECOMPRESS),
    b"\xfd7zXZ": ("xz data", _DECOMPRESS),
    b"PK\x03\x04": ("a zip archive", _DECOMPRESS),
    b"PAR1": ("a Parquet file", "write its rows as JSON lines"),
    b"\xff\xfe": ("UTF-16 text", "save the file as UTF-8"),
    b"\xfe\xff": ("UTF-16 text", "save the file as UTF-8"),
    b"{\0": ("UTF-16 text", "save the file as UTF-8"),
    b"\0{": ("UTF-16 text", "save the file as UTF-8"),
}
"""First bytes of a file that is not UTF-8 text -> its format, and advice for the user."""

_SHOWN = 80  # most characters of a value or a line that a message shows


@dataclass(frozen=True)
class Row:
    """One row of a problem file or data set.

    fields   the row as JSON values, not yet checked
    where    `FILE:LINE`, for messages
    source   name of the file or the data set
    """

    fields: Any
    where: str
    source: str


@dataclass(frozen=True)
class Entry:
    """The content of one row.

    problems    the row's task as a problem in each language
    references  language -> completions that are right, according to the source
    answers     language -> the cleaned response
    where       `FILE:LINE`, for messages
    digest      of the task's text, for sources in which different tasks share a name
    left_out    why the row is not used; empty where it is used
    """

    task: str
    problems: tuple[Problem, ...] = ()
    references: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    answers: Mapping[str, Cleaned] = field(default_factory=dict)
    where: str = ""
    digest: str = ""
    left_out: str = ""


class Fields(BaseModel):
    """Base of the models that check a row: types must match exactly, unknown keys are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _given(cls, value: Any) -> Any:
        """`value` without optional fields that are null: tables that were written as JSON have each column in each row."""
        if not isinstance(value, dict):
            return value
        optional = {name for name, info in cls.model_fields.items() if not info.is_required()}
        return {name: item for name, item in value.items() if item is not None or name not in optional}


def _seconds(value: Any) -> Any:
    if isinstance(value, dict):
        seconds, nanos = (value.get(name) or 0 for name in ("seconds", "nanos"))
        if isinstance(seconds, list | dict) or isinstance(nanos, list | dict):
            return value
        value = _number(lambda: float(seconds) + float(nanos) / 1e9, "seconds, such as 1.5 or 1.5s")
    elif isinstance(value, str):
        text = value.removesuffix("s")
        value = _number(lambda: float(text), "seconds, such as 1.5 or 1.5s")
    return _unless_zero(value)


def _bytes(value: Any) -> Any:
    if isinstance(value, str):
        text = value
        value = _number(lambda: int(text), "bytes, such as 268435456")
    return _unless_zero(value)


def _number(read: Callable[[], float], wanted: str) -> float:
    """What `read` gives. Raises ValueError that says what is `wanted` where that is no number, or too large for one."""
    try:
        return read()
    except OverflowError as error:  # which pydantic does not catch
        raise ValueError(str(error)) from None
    except ValueError:
        raise ValueError(f"expected {wanted}") from None


def _unless_zero(value: Any) -> Any:
    """None for 0, which stands for no limit; `False` is no number."""
    return None if value == 0 and value is not False else value


TimeLimit = Annotated[
    Annotated[float, Field(gt=0, le=LONGEST_SECONDS, allow_inf_nan=False)] | None, BeforeValidator(_seconds)
]
"""Seconds, in any of protobuf's notations: a number, "1.5s" or {"seconds": 1, "nanos": 500000000}; 0 becomes None."""
MemoryLimit = Annotated[Annotated[int, Field(gt=0, le=LARGEST_BYTES)] | None, BeforeValidator(_bytes)]
"""Bytes, as a number or as a string (protobuf's notation of large integers); 0 becomes None."""

Checked = TypeVar("Checked", bound=Fields)


def check_fields(row: Row, model: type[Checked]) -> Checked:
    """The fields of `row`, checked by `model`. Raises `DataError` that names the row and the wrong field."""
    if not isinstance(row.fields, dict):
        several = isinstance(row.fields, list) and any(isinstance(item, dict) for item in row.fields)
        advice = "; a list of objects: name the file .json" * several
        raise DataError(f"{row.where}: expected a JSON object, got {_shown(row.fields)}{advice}")
    try:
        return model.model_validate(row.fields)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or "row"
        if first["type"] == "missing":
            raise DataError(f"{row.where}: field {name!r} is missing{_needed(row, model, first)}") from None
        if first["type"] == "extra_forbidden":
            known = list(model.model_fields) if len(first["loc"]) == 1 else []
            allowed = f"; allowed: {', '.join(known)}" if known else ""
            raise DataError(
                f"{row.where}: field {name!r} is not known{suggestion(name, known)}{allowed}; take it out of the rows"
            ) from None
        said = first["msg"].removeprefix("Value error, ")
        said = "expected an object of fields" if first["type"] == "model_type" else said
        raise DataError(f"{row.where}: field {name!r}: {said}, got {_shown(first['input'])}") from None


def _needed(row: Row, model: type[Fields], error: Any) -> str:
    """What a row needs that lacks a field, and what it has; of an object inside the row, what that has."""
    found = ", ".join(map(str, error["input"])) or "nothing"
    if len(error["loc"]) > 1:
        return f" in its object, which has: {found}"
    needed = ", ".join(field for field, info in model.model_fields.items() if info.is_required())
    return f"; needed: {needed}; found: {found}"


def find_files(entries: Sequence[str]) -> list[Path]:
    """The problem files that `entries` name, sorted by path, each once. An entry is a file, a folder or a glob (with `**`).

    Raises `DataError` for an entry that matches no file.
    """
    found: dict[Path, Path] = {}
    for entry in entries:
        if "://" in entry:
            raise DataError(
                f"{entry}: problems are read from files of this machine; copy them here, and name the copy"
            )
        try:
            paths = _named(entry)
        except OSError as error:
            why = f"{len(entry)} characters are no path" if error.errno == ENAMETOOLONG else error.strerror
            raise DataError(f"{entry:.80}...: {why}; expected a file, a folder or a glob") from error
        if not paths:
            raise DataError(
                f"{entry}: no problem file there; expected a file, a folder or a glob of {', '.join(SUFFIXES)}"
            )
        found |= {path.resolve(): path for path in paths}
    return [found[path] for path in sorted(found)]


def _named(entry: str) -> list[Path]:
    """The files that one entry names. Raises OSError for what cannot be a path, or may not be read."""
    path = Path(entry)
    if path.is_dir():
        return [file for file in path.iterdir() if file.name.endswith(SUFFIXES)]
    found = [Path(match) for match in glob.glob(entry, recursive=True) if Path(match).is_file()]
    # A file whose name contains brackets is not matched by glob.
    return found or [path] * path.is_file()


def read_rows(path: Path, broken: Callable[[DataError], None] | None = None) -> Iterator[Row]:
    """The rows of one file: JSON lines, or in a .json file one object or a list of objects.

    broken  called with the error of each line of JSON lines that is broken, which is then left out

    Raises `DataError` for an unknown format, an unreadable or damaged file, a file without rows, and broken JSON without `broken`.
    """
    if not path.name.endswith(SUFFIXES):
        raise DataError(f"{path}: unknown format; expected one of {', '.join(SUFFIXES)}")
    whole = path.name.removesuffix(".gz").endswith(".json")
    yield from _json_rows(path) if whole else _jsonl_rows(path, broken)


def digest_files(paths: Iterable[Path]) -> str:
    """sha256 of the files' content, 64 hex digits. Names, folders, times and order of the files do not affect it.

    Raises `DataError` where a file cannot be read.
    """
    digests = []
    for path in paths:
        try:
            with path.open("rb") as file:
                digests.append(hashlib.file_digest(file, "sha256").hexdigest())
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    return hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()


def _json_rows(path: Path) -> Iterator[Row]:
    value = parse_json("".join(line for _, line in _lines(path)), path, 1)
    if not isinstance(value, list):
        yield Row(value, f"{path}:1", path.name)
        return
    if not value:
        raise _empty(path)
    for at, item in enumerate(value):
        yield Row(item, f"{path}:1: item {at}", path.name)


def _jsonl_rows(path: Path, broken: Callable[[DataError], None] | None) -> Iterator[Row]:
    empty = True
    for number, line in _lines(path):
        if not line.strip():
            continue
        empty = False
        try:
            value = parse_json(line.rstrip(), path, number)
        except DataError as error:
            if broken is None:
                raise
            broken(error)
            continue
        yield Row(value, f"{path}:{number}", path.name)
    if empty:
        raise _empty(path)


def _empty(path: Path) -> DataError:
    return DataError(f"{path}:1: the file holds no problems; expected one JSON object a line")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, line) of a file, without byte order marks; a carriage return also ends a line. Raises `DataError`."""
    number = 0
    try:
        opener: Any = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rb") as head:
            start = head.read(8)
        for magic, (kind, advice) in _KINDS.items():
            if start.startswith(magic):
                raise DataError(f"{path}:1: expected UTF-8 text, found {kind}; {advice}")
        with opener(path, "rt", encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                # A concatenation of several files has byte order marks within it, too.
                yield number, line.removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}:{number + 1}: not UTF-8 ({error.reason}); save the file as UTF-8") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"{path}:{number + 1}: damaged or truncated archive ({error}); fetch the file again"
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def parse_json(text: str, path: Path, line: int) -> Any:
    """The JSON value in `text`, line `line` of the file `path`. Raises `DataError` that says what is wrong, with advice."""
    try:
        value = json.loads(text, parse_constant=_refuse)
        if re.search(r"\\u[dD][89a-fA-F]", text):
            # Raises on half a surrogate pair, which UTF-8 cannot encode.
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        at = line + error.lineno - 1
        raise DataError(
            f"{path}:{at}: broken JSON at column {error.colno} ({error.msg}){_advice(text, error, path)}: "
            f"{text!r:.{_SHOWN}}"
        ) from None
    except UnicodeEncodeError:
        raise DataError(
            f"{path}:{line}: a text holds one half of a surrogate pair (\\ud800 to \\udfff), which is no character; "
            "write both halves, or the character itself"
        ) from None
    except RecursionError:
        raise DataError(
            f"{path}:{line}: JSON nested too deeply to be read; expected an object whose values are texts, numbers and "
            f"short lists: {text!r:.{_SHOWN}}"
        ) from None
    except ValueError as error:  # a constant such as NaN, or an integer of thousands of digits
        raise DataError(f"{path}:{line}: {error}: {text!r:.{_SHOWN}}") from None
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON; write null, or a number")


def _advice(text: str, error: json.JSONDecodeError, path: Path) -> str:
    """Advice for the user on broken JSON; empty where the mistake is not recognised."""
    before, here = text[: error.pos].rstrip(), text[error.pos :].lstrip()
    if here.rstrip() == "," or (before.endswith(",") and here[:1] in ("}", "]")) or here[:2] in (",}", ",]"):
        return "; a comma too many"
    if text.strip() in ("{", "["):
        return "; an object over several lines: write each on one line, or name the file .json"
    if here.startswith("'"):
        return "; JSON's texts stand in double quotes"
    if here.startswith("{") and path.name.removesuffix(".gz").endswith(".json"):
        return "; several objects: put them into a list, or name the file .jsonl"
    return ""


def _shown(value: Any) -> str:
    """The first characters of `value` as text; safe for deeply nested values."""
    if isinstance(value, dict | list):
        return reprlib.repr(value)[:_SHOWN]
    return f"{value!r:.{_SHOWN}}"
