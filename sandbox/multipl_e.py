"""Judges MultiPL-E's completions files (NAME.json.gz) and writes its results files (NAME.results.json.gz).

MultiPL-E's rule applies: the program is prompt + completion + newline + tests, and it passes if its status is `OK` and its exit
code 0. So a completion that ends the program early passes too. Three things differ from MultiPL-E: the time limit is on CPU time;
a timeout is confirmed by a second run; and if the sandbox itself fails on a completion, the results file is not written.

A results file has all fields of the completions file except `completions`, and a field `results`: for each completion
{program, stdout, stderr, exit_code, status, timestamp}. MultiPL-E's script pass_k.py computes pass@k from it.
"""

import gzip
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sandbox.client import Sandbox
from sandbox.errors import SandboxError, UsageError
from sandbox.languages import language
from sandbox.verdicts import Program, Result, Verdict

_SUFFIX = ".json.gz"
_RESULTS = ".results.json.gz"
_CPU_SECONDS = {"cs": 5.0, "js": 5.0}  # limit on CPU time by language
_OTHER_CPU_SECONDS = 15.0  # for all other languages
_KEPT = 2048  # characters of stdout and of stderr in a results file
_STATUSES = {Verdict.passed: "OK", Verdict.compile_error: "SyntaxError", Verdict.timeout: "Timeout"}
"""MultiPL-E's status by verdict; every other verdict becomes `Exception`."""
_FIELDS = ("name", "language", "prompt", "tests", "completions")


def completion_files(directory: Path) -> list[Path]:
    """The completions files in `directory` and below it. Raises `UsageError` if there are none."""
    if not directory.is_dir():
        raise UsageError(f"{directory}: not a folder")
    found = sorted(path for path in directory.rglob(f"*{_SUFFIX}") if not path.name.endswith(_RESULTS))
    if not found:
        raise UsageError(f"{directory}: expected MultiPL-E's completions files, NAME{_SUFFIX}, found none")
    return found


def results_path(path: Path) -> Path:
    """The path of the results file for completions file `path`."""
    return path.with_name(path.name.removesuffix(_SUFFIX) + _RESULTS)


def evaluate(sandbox: Sandbox, paths: list[Path]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """For each file, judge the completions that have no result yet, write the results file, and yield (path, content of the
    results file).

    Raises `UsageError` for a file that is not in MultiPL-E's format, `ToolsMissing`, and `SandboxError` if the sandbox could not
    judge a program. Results files that were written before such an error stay.
    """
    for path in paths:
        problem = _read(path, _FIELDS)
        sandbox.need(problem["language"])
        target = results_path(path)
        known = _read(target, ("results",))["results"] if target.exists() else []
        new = list(_results(sandbox, problem, len(known)))
        kept = {name: value for name, value in problem.items() if name != "completions"}
        done = kept | {"results": known + new}
        if new:
            _write(target, done)
        yield path, done


def _results(sandbox: Sandbox, problem: dict[str, Any], first: int) -> Iterator[dict[str, Any]]:
    row = language(problem["language"])
    name = row.name
    limits = row.limits.with_cpu(_CPU_SECONDS.get(name, _OTHER_CPU_SECONDS))
    prompt, tests, completions = problem["prompt"], problem["tests"], problem["completions"]
    sources = [f"{prompt}{completion}\n{tests}" for completion in completions[first:]]
    programs = [Program(str(at), name, source, limits=limits) for at, source in enumerate(sources)]
    found = {int(result.id): result for result in sandbox.run(programs)}
    for at, source in enumerate(sources):
        yield _row(source, found[at])


def _row(source: str, result: Result) -> dict[str, Any]:
    if not result.verdict.is_label:
        unfinished = "the sandbox could not judge a program, its file is left unfinished"
        raise SandboxError(f"{unfinished}: {result.stderr}")
    passed = result.verdict is Verdict.passed
    return {
        "program": source,
        "stdout": result.stdout[:_KEPT],
        "stderr": result.stderr[:_KEPT],
        "exit_code": 0 if passed else result.exit_code or -1,  # 0 would count as passed
        "status": _STATUSES.get(result.verdict, "Exception"),
        "timestamp": int(time.time()),
    }


def _read(path: Path, fields: tuple[str, ...]) -> dict[str, Any]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, EOFError, ValueError) as error:
        raise UsageError(f"{path}: {error}; expected gzipped JSON as MultiPL-E writes it") from error
    lacking = [name for name in fields if not isinstance(content, dict) or name not in content]
    if lacking:
        raise UsageError(f"{path}: lacks {', '.join(lacking)}; expected a file as MultiPL-E writes it")
    for name in fields:
        kind = list if name in ("completions", "results") else str
        if not isinstance(content[name], kind):
            raise UsageError(f"{path}: {name} is no {kind.__name__}; expected a file as MultiPL-E writes it")
    result: dict[str, Any] = content
    return result


def _write(path: Path, content: dict[str, Any]) -> None:
    part = path.with_name(f".{path.name}.part")
    try:
        with gzip.open(part, "wt", encoding="utf-8") as file:
            json.dump(content, file)
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise UsageError(f"cannot write {path}: {error}") from error
