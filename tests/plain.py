"""What plain tools say of programs, and what they said before.

`tests.bench.plain` compiles and runs each program; most of that time is the compilers'. So what a language's tools said is kept
in `KEPT`, one JSON object a line, under a digest of the tools' versions, the language's row and the program. Tools of other
versions run the programs again, as do one in `CHECKED` kept programs, so that a kept verdict that is not theirs is noticed.
Timeouts are not kept, since they depend on the machine. `python -m tests.plain_set --keep` and `python -m tests.truth DIR --keep`
write the file.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from sandbox.client import Sandbox, content_key
from sandbox.languages import language
from sandbox.verdicts import Program, Verdict
from tasks.progress import watch
from tests.bench.plain import Plain

KEPT = Path(__file__).parent / "sandbox" / "plain_verdicts.jsonl"
CHECKED = 10


def plain_verdicts(
    programs: Sequence[Program],
    backend: str,
    jobs: int,
    runs: int = 1,
    seconds: float = 60.0,
    kept: Path | None = None,
) -> dict[str, list[str]]:
    """The verdicts of the plain runs, by id: one for each of the `runs`, or a single one if the program does not compile.

    `kept`: a file of verdicts of the same tools; programs that it has are not run, but for some. Raises `ValueError` if one of
    those gets another verdict now.
    """
    said = read(kept)
    keys = of_tools(programs, backend) if kept else {}
    known = {program.id: said[keys[program.id]] for program in programs if keys.get(program.id) in said}
    todo = [it for it in programs if it.id not in known or int(keys[it.id], 16) % CHECKED == 0]
    found: dict[str, list[str]] = {}
    progress = watch("plain")
    for image in dict.fromkeys(language(program.language).image for program in todo):
        plainly = Plain(backend, jobs, image)
        own = [program for program in todo if language(program.language).image == image]
        for done, (id, verdicts) in enumerate(plainly.run(own, runs, seconds), 1):
            found[id] = verdicts
            progress(done, len(own), "programs", {})
        plainly.close()
    changed = {id: (known[id], found[id][0]) for id in found if id in known and known[id] != found[id][0]}
    if changed:
        raise ValueError(f"{kept}: other verdicts than the same tools' now (kept, now): {changed}")
    return {id: [verdict] for id, verdict in known.items()} | found


def keep(
    programs: Sequence[Program], backend: str, verdicts: dict[str, list[str]], kept: Path = KEPT
) -> None:
    """Add what the tools of `backend` said to a file. Programs whose runs differ, and timeouts, are left out."""
    keys = of_tools(programs, backend)
    sure = {
        keys[id]: said[0] for id, said in verdicts.items() if len(set(said)) == 1 and said[0] != "timeout"
    }
    rows = sorted((read(kept) | sure).items())
    kept.write_text("".join(json.dumps({"key": key, "verdict": verdict}) + "\n" for key, verdict in rows))


def read(kept: Path | None) -> dict[str, str]:
    """The verdicts of a file, by key."""
    rows = map(json.loads, kept.read_text().splitlines()) if kept and kept.exists() else ()
    return {row["key"]: row["verdict"] for row in rows}


def of_tools(programs: Sequence[Program], backend: str) -> dict[str, str]:
    """The key of each program, by id: 16 hexadecimal digits. Versions of libraries are no part of it: no program here uses one."""
    with Sandbox(backend, 1) as sandbox:  # type: ignore[arg-type]
        names = dict.fromkeys(program.language for program in programs)
        tools = {
            name: [
                part
                for part in sandbox.identity(name).split("; ")
                if ": " in part or part.startswith("rules ")
            ]
            for name in names
        }
    return {
        program.id: hashlib.sha256(
            json.dumps([tools[program.language], content_key(program)]).encode()
        ).hexdigest()[:16]
        for program in programs
    }


def in_plain_words(verdict: Verdict) -> str:
    """A verdict of the sandbox in the terms of plain runs."""
    same = {Verdict.passed, Verdict.compile_error, Verdict.timeout, Verdict.sandbox_error}
    return str(verdict) if verdict in same else "failed"
