"""Runs each program with a fresh compiler and a fresh process: the baseline for the sandbox's speed and verdicts.

    python -m tests.bench.plain JOBS

reads requests {"program": Program, "runs": N, "seconds": S}, one JSON object a line, runs JOBS of them at once, and writes
{"id": ..., "verdicts": [...]} for each when it is done. There is no isolation. `tests.bench.sandbox` uses this for speed,
`tests.truth` and `tests.plain_set` for verdicts. A verdict is passed, failed, compile_error or timeout (a step took more than S
seconds), one for each of the N runs, or a single one if the program does not compile. A program with cases passes if the output
of every case is right by the program's own comparing rule.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sandbox.backends import docker
from sandbox.channel import Channel, Pipe
from sandbox.classfiles import main_class
from sandbox.compare import same
from sandbox.encoding import encoded
from sandbox.languages import COMMON, CONTEST_ENV, PATH, Language, heap_mib, language, likely_name, stack_mib
from sandbox.libraries import openssl
from sandbox.prepared import IN_COMMANDS
from sandbox.verdicts import Case, Program

_MODULE = "tests.bench.plain"
_FILE = "tests/bench/plain.py"


def main() -> None:
    """Answer requests until stdin ends."""
    with ThreadPoolExecutor(int(sys.argv[1])) as threads:
        for line in sys.stdin:
            threads.submit(_answer, json.loads(line))


def _answer(request: dict[str, Any]) -> None:
    program = Program.from_json(request["program"])
    found = verdicts(program, request["runs"], request["seconds"])
    sys.stdout.write(json.dumps({"id": program.id, "verdicts": found}) + "\n")
    sys.stdout.flush()


class Plain:
    """`python -m tests.bench.plain` where `backend` has its tools: on this machine, or in a container of docker's image."""

    def __init__(self, backend: str, jobs: int, image: str = COMMON) -> None:
        command = (_MODULE, str(jobs))
        contained = backend == docker.NAME
        self._channel: Channel = (
            docker.starter(command=command, more=((_FILE, Path(__file__)),))(image)
            if contained
            else Pipe(("python3", "-m", *command))
        )

    def run(
        self, programs: Sequence[Program], runs: int = 1, seconds: float = 60.0
    ) -> Iterator[tuple[str, list[str]]]:
        """Yields ids and verdicts in the order in which they finish. Raises `SandboxError`, `OSError`."""
        for program in programs:
            request = {"program": program.to_json(), "runs": runs, "seconds": seconds}
            self._channel.send(json.dumps(request).encode() + b"\n")
        lines = b""
        for _ in programs:
            while b"\n" not in lines:
                lines += self._channel.receive(time.monotonic() + 10 * runs * seconds)
            line, _, lines = lines.partition(b"\n")
            answer = json.loads(line)
            yield answer["id"], answer["verdicts"]

    def close(self) -> None:
        """End it."""
        self._channel.hang_up()
        self._channel.close()


def verdicts(program: Program, runs: int, seconds: float) -> list[str]:
    """Compile a program once and run it `runs` times; the verdict of each run."""
    with tempfile.TemporaryDirectory() as directory:
        row, values = written(program, directory, directory)
        environment = {"PATH": PATH, "HOME": directory, "LANG": "C.UTF-8"}
        environment |= {name: value.format_map(values) for name, value in row.env}
        start = row.run
        if program.cases:
            environment |= CONTEST_ENV
            start = ("prlimit", f"--stack={(program.limits or row.limits).memory_bytes}", *row.run)

        def run(argv: tuple[str, ...], stdin: str = "") -> tuple[int, str, str] | None:
            return _run(filled(argv, values), directory, environment, seconds, stdin)

        if row.compile:
            compiled = run(row.compile)
            if compiled and compiled[0] != 0 and (named := re.search(row.misnamed, compiled[2])):
                before, values["name"] = row.file.format_map(values), named[1]
                with contextlib.suppress(OSError):  # too long a name
                    Path(directory, before).rename(Path(directory, row.file.format_map(values)))
                compiled = run(row.compile)
            if compiled is None or compiled[0] != 0:
                return ["timeout" if compiled is None else "compile_error"]
            values["entry"] = main_class(Path(directory)) or values["name"]

        def verdict(case: Case) -> str:
            ended = run(start, case.stdin)
            if ended is None:
                return "timeout"
            code, out, err = ended
            expected = case.expected_stdout
            right = expected is None or same(program.compare, out.encode(), expected)
            told = err + out if row.reports_on_stdout else err
            marked = program.end_marker is None or program.end_marker in out.split("\n")
            if code == 0 and marked and right and not re.search(row.failed_quietly, told):
                return "passed"
            if code != 0 and row.syntax_check:
                checked = run(row.syntax_check)
                if checked is None or checked[0] != 0:
                    return "compile_error"
            return "compile_error" if code != 0 and re.search(row.refused, told) else "failed"

        cases = program.cases or (Case("", None),)

        def of_all_cases() -> str:
            return next((said for case in cases if (said := verdict(case)) != "passed"), "passed")

        return [of_all_cases() for _ in range(runs)]


def written(program: Program, directory: str, seen_as: str) -> tuple[Language, dict[str, str]]:
    """Write a program into `directory`, which its commands see as `seen_as`. Returns the language's row and the values for the row's
    templates, except `entry`, which is known only after compiling."""
    row = language(program.language).of(program)
    values = {
        "dir": seen_as,
        "name": likely_name(row, program.source),
        "heap": str(heap_mib(program.limits or row.limits)),
        "stack": str(stack_mib(program.limits or row.limits)),
        "openssl": openssl(program.source),
        "linker": "",
        **dict.fromkeys(IN_COMMANDS, ""),
    }
    Path(directory, row.file.format_map(values)).write_bytes(encoded(program.source))
    return row, values


def filled(argv: Sequence[str], values: Mapping[str, str]) -> list[str]:
    """A command of a row with `values`, without empty arguments."""
    return [part for template in argv if (part := template.format_map(values))]


def _run(
    argv: list[str], directory: str, env: dict[str, str], seconds: float, stdin: str
) -> tuple[int, str, str] | None:
    """Exit code, stdout and stderr; None if it takes longer than `seconds`."""
    with subprocess.Popen(
        argv, cwd=directory, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0,
    ) as process:  # fmt: skip
        try:
            out, err = process.communicate(encoded(stdin), timeout=seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # what it started, too
    return process.returncode, out.decode(errors="replace"), err.decode(errors="replace")


if __name__ == "__main__":
    main()
