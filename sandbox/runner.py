"""The worker process, which judges one program after another.

    python -m sandbox.runner process|bubblewrap|container

The worker reads requests from stdin and writes answers to stdout, both as JSON lines. It ends when its stdin is closed.

    {"judge": [Program, ...]} -> {"answer": Result} for each program, in order
    {"missing": language}     -> {"answer": [tools]}
    {"identity": language}    -> {"answer": text}
    if the sandbox fails      -> {"error": message}, and no more answers to this request

After an answer with `"last": true` the worker ends, because the program left something that cannot be removed.

All backends use this code: on the machine, with or without bubblewrap around each program, and inside a container.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sandbox.confine import become_subreaper
from sandbox.errors import SandboxError
from sandbox.group import of_container, own
from sandbox.installed import installed_libraries
from sandbox.judge import Judge, Place
from sandbox.languages import PATH, Language, language
from sandbox.verdicts import Program
from sandbox.watch import CallerGone

_FLUSH_SECONDS = 0.02
"""Answers that follow each other within this time are written together, because each write passes through Docker's daemon."""


def main() -> None:
    """Serve requests until stdin ends."""
    become_subreaper()
    os.umask(0o022)  # programs may run as another user and have to read the runner's files
    caller, answers = os.dup(0), os.fdopen(os.dup(1), "w")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)  # child processes must not inherit the client's pipes
    os.dup2(null, 1)
    with tempfile.TemporaryDirectory(prefix="sandbox-") as scratch:
        place = Place(sys.argv[1])
        group = of_container() if place is Place.container else own()
        judge = Judge(Path(scratch), place, caller, group)
        try:
            for line in os.fdopen(caller, "rb", closefd=False):
                flushed = time.monotonic()
                for said in answer(judge, json.loads(line)):
                    print(json.dumps(said if judge.clean else said | {"last": True}), file=answers)
                    if time.monotonic() > flushed + _FLUSH_SECONDS:
                        answers.flush()
                        flushed = time.monotonic()
                    if not judge.clean:
                        break
                answers.flush()
                judge.pinned.release()
                if not judge.clean:
                    break
        except (CallerGone, BrokenPipeError):
            pass
        finally:
            judge.close()
            if group:
                group.close()


def answer(judge: Judge, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The answers to one request. If the sandbox fails, the last answer is an `error`. Raises `CallerGone`."""
    try:
        judge.check_reachable()
        if "missing" in request:
            yield {"answer": missing_tools(language(request["missing"]))}
        elif "identity" in request:
            yield {"answer": identity(language(request["identity"]))}
        else:
            for program in request["judge"]:
                yield {"answer": judge.judge(Program.from_json(program)).to_json()}
    except CallerGone:
        raise
    except (SandboxError, OSError, subprocess.SubprocessError) as error:
        judge.close()  # a warm interpreter or compiler may have caused the failure
        yield {"error": f"{type(error).__name__}: {error}"}


def missing_tools(row: Language) -> list[str]:
    """The tools and files of a language that are missing on this machine or in this container."""
    tools = [tool for tool in row.tools if shutil.which(tool, path=PATH) is None]
    return tools + [file for file in row.files if not Path(file).exists()]


def identity(row: Language) -> str:
    """The versions of a language's tools and libraries and a digest of its rules; see `Sandbox.identity`."""
    versions = []
    for argv in row.versions:
        done = subprocess.run(
            argv, capture_output=True, text=True, env={"PATH": PATH}, timeout=60, check=True
        )
        versions.append(f"{argv[0]}: {(done.stdout or done.stderr).strip().splitlines()[0]}")
    versions += installed_libraries(row)
    return f"{row.name} {'; '.join(versions)}; rules {row.rules()}"


if __name__ == "__main__":
    main()
