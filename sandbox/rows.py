"""The files of `python -m sandbox judge`: rows of programs in, rows of results out, as JSON lines."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from sandbox.client import content_key
from sandbox.completion import extract_completion, is_answer
from sandbox.errors import UsageError
from sandbox.languages import language
from sandbox.programs import assemble
from sandbox.verdicts import Case, Program, Result, Verdict

_SHAPES = (
    {"id", "language", "program"},
    {"id", "language", "program", "cases"},
    {"id", "language", "prompt", "completion", "tests"},
)


def read_programs(path: Path, cpu_seconds: float | None = None) -> list[Program]:
    """The programs in `path`, one a line, shaped as in `_SHAPES`. Raises `UsageError`.

    `cpu_seconds`: the limit on CPU time of one run, in place of the language's own.
    """
    programs = []
    for number, text in _lines(path):
        try:
            program = _program(json.loads(text))
        except (ValueError, UsageError) as error:
            raise UsageError(f"{path}:{number}: {error}") from error
        limits = language(program.language).limits.with_cpu(cpu_seconds) if cpu_seconds else None
        programs.append(replace(program, limits=limits))
    if not programs:
        raise UsageError(f"{path}: expected one JSON object a line, got an empty file")
    return programs


def _program(row: Any) -> Program:
    if not isinstance(row, dict) or row.keys() not in _SHAPES:
        got = ", ".join(sorted(row)) if isinstance(row, dict) else type(row).__name__
        wanted = " | ".join("{" + ", ".join(sorted(shape)) + "}" for shape in _SHAPES)
        raise UsageError(f"expected an object with the fields {wanted}, got {got or 'none'}")
    for name in row.keys() - {"cases"}:
        _text(row[name], name)
    language(row["language"])
    if "tests" in row:
        completion, prompt, name = row["completion"], row["prompt"], language(row["language"]).name
        if is_answer(prompt, completion):
            completion = extract_completion(prompt, completion, name)
        pieces = assemble(name, prompt, completion, row["tests"])
        return Program(row["id"], row["language"], pieces.source, end_marker=pieces.end_marker)
    return Program(row["id"], row["language"], row["program"], _cases(row.get("cases", [])))


def _cases(cases: Any) -> tuple[Case, ...]:
    if not isinstance(cases, list):
        raise UsageError(f"cases: expected a list, got {type(cases).__name__}")
    for case in cases:
        if not isinstance(case, dict) or case.keys() != {"stdin", "stdout"}:
            raise UsageError("cases: expected objects with the fields stdin, stdout")
    return tuple(Case(_text(case["stdin"], "stdin"), _text(case["stdout"], "stdout")) for case in cases)


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{name}: expected a string, got {type(value).__name__}")
    return value


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file that are not blank, with their numbers from 1."""
    try:
        with path.open(encoding="utf-8") as file:
            for number, text in enumerate(file, 1):
                if text.strip():
                    yield number, text
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}") from error


class ResultFile:
    """Results on their way to `path`: as they come in `path`.part, in the end in the order of `programs`.

    With `resume`, results that an earlier, unfinished call left there are taken over where the program is
    still the same and the sandbox did judge it. `done`: their verdicts, by number of program.
    """

    def __init__(self, path: Path, programs: list[Program], resume: bool) -> None:
        self._path, self._part = path, path.with_name(path.name + ".part")
        self._contents = [content_key(program) for program in programs]
        self._ids = [program.id for program in programs]
        self._places: dict[int, int] = {}  # of results in the part file, so that memory need not hold them
        self.done: dict[int, Verdict] = {}
        if resume:
            self._take_over()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._part.open("ab" if resume else "wb")
        except OSError as error:
            raise UsageError(f"cannot write {self._part}: {error}") from error
        if resume:
            self._file.write(b"\n")  # ends a line that a killed call left torn

    def add(self, row: int, result: Result) -> None:
        """Keep the result of program number `row`."""
        line = {"row": row, "content": self._contents[row], "result": result.to_json()}
        with self._told():
            self._places[row] = self._file.tell()
            self._file.write(json.dumps(line).encode() + b"\n")
            self._file.flush()
        self.done[row] = result.verdict

    def finish(self) -> None:
        """Write all results in the order of the programs; until they are all there, `path` stays as it was.

        Where the sandbox failed on some, what it said of the others stays for a later call with `resume`.
        """
        whole = self._path.with_name(self._path.name + ".whole")
        with self._told():
            self._file.close()
            with self._part.open("rb") as part, whole.open("w", encoding="utf-8") as file:
                for row, id in enumerate(self._ids):
                    part.seek(self._places[row])
                    file.write(json.dumps(json.loads(part.readline())["result"] | {"id": id}) + "\n")
                file.flush()
                os.fsync(file.fileno())
            whole.replace(self._path)
            if all(verdict.is_label for verdict in self.done.values()):
                self._part.unlink()

    @contextmanager
    def _told(self) -> Iterator[None]:
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
                    continue  # the last line of a call that was killed
                known = row < len(self._contents) and self._contents[row] == content
                if known and result.verdict.is_label:
                    self._places[row], self.done[row] = here, result.verdict
