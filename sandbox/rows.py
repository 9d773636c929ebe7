"""Reads the programs and writes the results of `python -m sandbox judge`, both as JSON lines."""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from sandbox.cache import foreign
from sandbox.client import content_key
from sandbox.compare import DEFAULT_RULE
from sandbox.completion import Unreadable, extract_program, is_answer
from sandbox.errors import UsageError
from sandbox.languages import language
from sandbox.programs import assemble
from sandbox.twin import check_audit, chosen
from sandbox.verdicts import Case, Checker, Limits, Program, Result, Verdict, largest

log = logging.getLogger(__name__)

# The fields that a row must have: all of one of these groups.
_SHAPES = (("id", "language", "prompt", "completion", "tests"), ("id", "language", "program"))
_OPTIONAL = ("cases", "compare", "checker", "every_case", "limits", "audit")
_FIELDS = {*_SHAPES[0], *_SHAPES[1], *_OPTIONAL}
_LIMITS = {field.name: int if isinstance(field.default, int) else float for field in fields(Limits)}
UNREADABLE = "unreadable answer"
_OF_RESULTS = tuple(field.name for field in fields(Result))


@dataclass(frozen=True)
class Row:
    """One line of the input file.

    `extra`: fields that do not describe the program; they are copied to the line of its result.
    `known`: the result, if no program could be extracted from the answer; then there is nothing to run.
    """

    program: Program
    extra: dict[str, Any]
    known: Result | None = None


def read_rows(
    path: Path, cpu_seconds: float | None = None, compare: str = DEFAULT_RULE, audit: str = "off"
) -> list[Row]:
    """The programs in file `path`, one a line, each with the fields of one of `_SHAPES`. Raises `UsageError`.

    `cpu_seconds`: the limit on CPU time of one run for rows without such a limit; None: the language's default.
    `compare`: the rule for rows that name no rule. `audit`: which rows with a completion are audited for tampering if they pass, a
    rule of `sandbox.twin.chosen`, for rows without the field `audit`. Other fields of a row go into `Row.extra`. One warning lists them, and says
    which of them are dropped because a result has a field of that name.
    """
    rows = []
    for number, text in _lines(path):
        try:
            rows.append(parse_row(json.loads(text), cpu_seconds, compare, audit))
        except json.JSONDecodeError as error:
            wrong = f"broken JSON at column {error.colno} ({error.msg}): {text!r:.80}"
            raise UsageError(f"{path}:{number}: {wrong}; expected one JSON object a line") from error
        except (ValueError, UsageError) as error:
            raise UsageError(f"{path}:{number}: {error}") from error
        except RecursionError as error:
            raise UsageError(f"{path}:{number}: lists or objects nested too deep to be read") from error
    if not rows:
        raise UsageError(f"{path}: expected one JSON object a line, got an empty file")
    if extra := dict.fromkeys(name for row in rows for name in row.extra):
        kept = [name for name in extra if name not in _OF_RESULTS]
        lost = [name for name in extra if name in _OF_RESULTS]
        said = [f"not used, carried over to the results: {', '.join(kept)}"] * bool(kept)
        said += [f"not used, and left out, because results have such fields: {', '.join(lost)}"] * bool(lost)
        log.warning("%s: fields %s", path, "; ".join(said))
    return rows


def parse_row(
    row: Any, cpu_seconds: float | None = None, compare: str = DEFAULT_RULE, audit: str = "off"
) -> Row:
    """The program in a JSON object. `cpu_seconds`, `compare`, `audit`: as in `read_rows`. Raises `UsageError`, `ValueError`."""
    wanted = " | ".join("{" + ", ".join(shape) + "}" for shape in _SHAPES)
    if not isinstance(row, dict):
        raise UsageError(f"expected an object with the fields {wanted}, got {type(row).__name__}")
    # A table that is written as JSON has null where a row lacks what others have.
    row = {name: value for name, value in row.items() if value is not None or name not in _FIELDS}
    whole = [shape for shape in _SHAPES if row.keys() >= set(shape)]
    of_cases = {"cases", "compare", "checker", "every_case"} & row.keys()
    misplaced = whole and ({"audit"} & row.keys() if "program" in whole[0] else of_cases)
    if len(whole) != 1 or misplaced:
        raise UsageError(
            f"expected an object with the fields {wanted}, the first with or without audit, the last with or without cases, compare, "
            f"checker and every_case; "
            f"got {_names(row) or 'none'}{_hint(row) or _lacking(row)}"
        )
    used = {*whole[0], *_OPTIONAL}
    extra = {name: value for name, value in row.items() if name not in used}
    if meant := _hint(extra, _OPTIONAL):
        raise UsageError(f"unknown field{meant}")
    for name in whole[0]:
        _text(row[name], name)
    name = language(row["language"]).name
    limits = _limits(row.get("limits"), name, cpu_seconds)
    if "program" in used:
        cases, rule = _cases(row.get("cases", [])), _text(row.get("compare", compare), "compare")
        checker = _checker(row["checker"]) if "checker" in row else None
        every = row.get("every_case", False)
        if not isinstance(every, bool):
            raise UsageError(f"every_case: expected true or false, got {every!r:.80}")
        program = Program(row["id"], name, row["program"], cases, None, limits, rule, checker, every)
        return Row(program, extra)
    completion, prompt = row["completion"], row["prompt"]
    audit = check_audit(_text(row.get("audit", audit), "audit"))
    if is_answer(prompt, completion, name):
        try:
            prompt, completion, _ = extract_program(prompt, completion, name, row["tests"])
        except Unreadable as error:
            known = Result(row["id"], Verdict.wrong_answer, note=f"{UNREADABLE}: {error}")
            return Row(Program(row["id"], name, completion), extra, known)
    made = assemble(name, prompt, completion, row["tests"])
    return Row(made.program(row["id"], name, limits, chosen(audit, made.source)), extra)


def _hint(row: dict[str, Any], names: tuple[str, ...] = (*_SHAPES[0], *_SHAPES[1])) -> str:
    """A hint for an error message, if the name of a field of `row` is similar to one of `names`; else empty."""
    for got in sorted(row.keys() - set(names)):
        if close := get_close_matches(got.lower(), [name for name in names if name not in row], 1, 0.85):
            return f" {got!r}; did you mean {close[0]!r}?"
    return ""


def _lacking(row: dict[str, Any]) -> str:
    """What an error message says of the fields that `row` lacks of the shape that it is most like; empty where that is not clear."""
    shape = max(_SHAPES, key=lambda shape: len(row.keys() & set(shape)))
    lacking = [name for name in shape if name not in row]
    clear = row.keys() & set(shape) - {"id", "language"}
    return f", without {', '.join(lacking)}" if clear and lacking else ""


def _names(fields: dict[str, Any]) -> str:
    """The names of fields for a message: of many, and of long ones, a part."""
    return ", ".join(f"{name:.40}" for name in sorted(fields)[:12])


def _cases(cases: Any) -> tuple[Case, ...]:
    if not isinstance(cases, list):
        raise UsageError(f"cases: expected a list, got {type(cases).__name__}")
    for case in cases:
        if not isinstance(case, dict) or case.keys() != {"stdin", "stdout"}:
            raise UsageError("cases: expected objects with the fields stdin, stdout")
    return tuple(Case(_text(case["stdin"], "stdin"), _text(case["stdout"], "stdout")) for case in cases)


def _checker(checker: Any) -> Checker:
    if not isinstance(checker, dict) or checker.keys() != {"language", "program"}:
        raise UsageError("checker: expected an object with the fields language, program")
    name = language(_text(checker["language"], "checker.language")).name
    return Checker(name, _text(checker["program"], "checker.program"))


def _limits(given: Any, name: str, cpu_seconds: float | None) -> Limits | None:
    """The limits of language `name` with the `given` limits (the row's) replaced; None if the row has none and there is no
    `cpu_seconds`."""
    own = language(name).limits
    if given is None:
        return own.with_cpu(cpu_seconds) if cpu_seconds else None
    if not isinstance(given, dict) or given.keys() - _LIMITS.keys():
        got = _names(given) if isinstance(given, dict) else type(given).__name__
        raise UsageError(f"limits: expected an object with fields of {', '.join(_LIMITS)}, got {got}")
    for limit, value in given.items():
        kind, most = _LIMITS[limit], largest(limit)
        number = isinstance(value, int | kind) and not isinstance(value, bool)
        if not number or not 0 < value <= most:
            expected = f"expected a number ({kind.__name__}) above 0 and at most {most}"
            raise UsageError(f"limits.{limit}: {expected}, got {value!r:.40}")
    seconds = given.get("cpu_seconds", cpu_seconds)
    return replace(own.with_cpu(seconds) if seconds else own, **given)


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{name}: expected a string, got {type(value).__name__}")
    return value


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """(line number from 1, text) of each non-blank line of a file, without byte order marks."""
    try:
        with path.open(encoding="utf-8") as file:
            for number, text in enumerate(file, 1):
                if text := text.lstrip("\ufeff").strip():
                    yield number, text
    except UnicodeDecodeError as error:
        advice = (
            "unpack it" if path.suffix in (".gz", ".xz", ".zst", ".bz2", ".zip") else "save the file as UTF-8"
        )
        raise UsageError(f"{path}: not UTF-8 ({error.reason}); {advice}") from error
    except OSError as error:
        raise UsageError(f"{path}: {error}") from error


def check_paths(source: Path, target: Path, cache: Path | None) -> None:
    """Raise `UsageError` where judging file `source` into `target` would write over another file than an earlier result, or `cache`
    is no verdict cache: better told before anything is run."""
    for path in (target, cache):
        if path is None or not path.exists() or path.is_file():
            continue
        if path.is_dir():
            raise UsageError(f"{path} is a folder; expected the name of a file to write")
        # A file that is ready is moved there: root would replace /dev/null by it.
        raise UsageError(f"{path} is a device, pipe or socket; expected the name of a file to write")
    written = [
        (target, "output"),
        (part_of(target.resolve()), "output"),
        *([(cache, "cache")] if cache else []),
    ]
    for at, (path, what) in enumerate(written):
        for other, role in [(source, "input"), *written[:at]]:
            there = path.exists() and other.exists()
            if path.resolve() == other.resolve() or (there and path.samefile(other)):
                raise UsageError(f"{path}: {role} and {what} are one file; name another {what}")
    if cache is not None and foreign(cache):
        raise UsageError(f"{cache}: no verdict cache, but another file; name another file for the cache")


def part_of(target: Path) -> Path:
    """The file in which results are collected before all are there."""
    return target.with_name(target.name + ".part")


class ResultFile:
    """The file of results. Results are first written to `path`.part in the order in which they arrive. `finish` writes `path`, in
    the order of `rows`.

    `resume`: keep the results in `path`.part of an interrupted call, unless the program has changed or the verdict is
    `sandbox_error`. `done`: verdicts by row number. `notes`: notes by row number.
    """

    def __init__(self, path: Path, rows: list[Row], resume: bool) -> None:
        path = path.resolve()  # what a link names is replaced, not the link
        self._path, self._part = path, part_of(path)
        self._contents = [content_key(row.program) for row in rows]
        self._own = [row.extra | {"id": row.program.id} for row in rows]
        # Offsets of the results in the part file, so that the results need no memory.
        self._places: dict[int, int] = {}
        self.done: dict[int, Verdict] = {}
        self.notes: dict[int, str] = {}
        if resume:
            self._take_over()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._part.open("ab" if resume else "wb")
        except OSError as error:
            raise UsageError(f"cannot write {self._part}: {error}") from error
        if resume:
            self._file.write(b"\n")  # a killed call may have left an incomplete line

    def add(self, row: int, result: Result) -> None:
        """Write the result of row number `row`."""
        line = {"row": row, "content": self._contents[row], "result": result.to_json()}
        with self._write_errors():
            self._places[row] = self._file.tell()
            self._file.write(json.dumps(line).encode() + b"\n")
            self._file.flush()
        self._know(row, result)

    def finish(self) -> None:
        """Write all results in the order of the rows, and replace `path` atomically.

        If a verdict is `sandbox_error`, the part file stays for a later call with `resume`.
        """
        whole = self._path.with_name(self._path.name + ".whole")
        with self._write_errors():
            self._file.close()
            with self._part.open("rb") as part, whole.open("w", encoding="utf-8") as file:
                for row, own in enumerate(self._own):
                    part.seek(self._places[row])
                    result = json.loads(part.readline())["result"]
                    file.write(json.dumps(own | result | {"id": own["id"]}) + "\n")
                file.flush()
                os.fsync(file.fileno())
            whole.replace(self._path)
            if all(verdict.is_label for verdict in self.done.values()):
                self._part.unlink()

    @contextmanager
    def _write_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UsageError(
                f"cannot write {self._path}: {error}; what was judged before stays in {self._part}: call it again with --resume"
            ) from error

    def _take_over(self) -> None:
        if not self._part.exists():
            return
        with self._part.open("rb") as file:
            place = 0
            for text in file:
                here, place = place, place + len(text)
                try:
                    line = json.loads(text)
                    row, content, result = line["row"], line["content"], Result.from_json(line["result"])
                except (ValueError, KeyError, TypeError):
                    continue  # an incomplete line of a killed call
                known = row < len(self._contents) and self._contents[row] == content
                if known and result.verdict.is_label:
                    self._places[row] = here
                    self._know(row, result)

    def _know(self, row: int, result: Result) -> None:
        self.done[row] = result.verdict
        if result.note:
            self.notes[row] = result.note
