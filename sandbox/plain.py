"""Programs run plainly: a fresh compiler and a fresh process for each, no warm helper, no isolation. What the sandbox is
measured against, for speed (`bench`) and for its verdicts.

    python -m sandbox.plain JOBS

reads lines {"program": Program, "runs": N, "seconds": S} and writes lines {"id": ..., "verdicts": [...]}, as they come, JOBS
at once: for each of N runs passed, failed, compile_error or timeout (over S seconds), or one alone where it does not compile.
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
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sandbox.backends import docker
from sandbox.channel import Channel, Pipe
from sandbox.languages import COMMON, PATH, entry, heap_mib, language
from sandbox.prepared import UNPREPARED
from sandbox.verdicts import Program


def main() -> None:
    """Serve until stdin ends."""
    with ThreadPoolExecutor(int(sys.argv[1])) as threads:
        for line in sys.stdin:
            threads.submit(_answer, json.loads(line))


def _answer(request: dict[str, Any]) -> None:
    program = Program.from_json(request["program"])
    found = verdicts(program, request["runs"], request["seconds"])
    sys.stdout.write(json.dumps({"id": program.id, "verdicts": found}) + "\n")
    sys.stdout.flush()


class Plain:
    """`python -m sandbox.plain`, where `backend` has its tools: on this machine, or in a container of docker's image."""

    def __init__(self, backend: str, jobs: int, image: str = COMMON) -> None:
        command = ("python3", "-m", "sandbox.plain", str(jobs))
        contained = backend == docker.NAME
        self._channel: Channel = docker.start(image, command=command) if contained else Pipe(command)

    def run(
        self, programs: Sequence[Program], runs: int = 1, seconds: float = 60.0
    ) -> Iterator[tuple[str, list[str]]]:
        """Ids and verdicts, as they come. Raises `SandboxError`, `OSError`."""
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
    """Compile a program and run it so many times."""
    row = language(program.language).of(program.source)
    with tempfile.TemporaryDirectory() as directory:
        values = {
            "dir": directory,
            "entry": entry(row, program.source),
            "heap": str(heap_mib(program.limits or row.limits)),
            **UNPREPARED,
        }
        Path(directory, row.file.format_map(values)).write_text(program.source, errors="replace")
        environment = {"PATH": PATH, "HOME": directory, "LANG": "C.UTF-8"}
        environment |= {name: value.format_map(values) for name, value in row.env}

        def run(argv: tuple[str, ...]) -> tuple[int, str, str] | None:
            filled = [part.format_map(values) for part in argv]
            return _run([part for part in filled if part], directory, environment, seconds)

        if row.compile:
            compiled = run(row.compile)
            if compiled is None or compiled[0] != 0:
                return ["timeout" if compiled is None else "compile_error"]

        def verdict() -> str:
            ended = run(row.run)
            if ended is None:
                return "timeout"
            code, out, err = ended
            told = err + out if row.reports_on_stdout else err
            marked = program.end_marker is None or program.end_marker in out.split("\n")
            if code == 0 and marked and not re.search(row.failed_quietly, told):
                return "passed"
            if code != 0 and row.syntax_check:
                checked = run(row.syntax_check)
                if checked is None or checked[0] != 0:
                    return "compile_error"
            return "compile_error" if code != 0 and re.search(row.refused, told) else "failed"

        return [verdict() for _ in range(runs)]


def _run(argv: list[str], directory: str, env: dict[str, str], seconds: float) -> tuple[int, str, str] | None:
    """Exit code, stdout and stderr; None where it takes longer."""
    with subprocess.Popen(
        argv, cwd=directory, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, errors="replace", start_new_session=True,
    ) as process:  # fmt: skip
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # what it started, too
    return process.returncode, out, err


if __name__ == "__main__":
    main()
