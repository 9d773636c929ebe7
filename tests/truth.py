"""Compares the sandbox's verdicts with those of slow, plain runs, on real MultiPL-E problems with a model's answers.

    python -m tests.truth DIR [--languages py,sh] [--rows 40] [--backend docker] [--plain 5] [--busy 2] [--keep]

Reads DIR/mbpp-LANG.jsonl. The backend's plain tools (`tests.plain`) compile and run each program `--plain` times, one at
a time, for at most half a minute each; exit code and end marker alone decide the verdict. Programs whose plain verdicts differ
are unstable: they are listed and left out. `--keep` and `--kept FILE` store and use the plain verdicts (`tests.plain`). Then the
sandbox judges all programs, once on an idle machine and `--busy` times with every core busy. Differences are listed by id. The
exit code is 1 if more than 2 in a thousand programs differ or are unstable.
"""

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sandbox.client import Sandbox
from sandbox.completion import Unreadable, extract_program, is_answer
from sandbox.programs import assemble
from sandbox.verdicts import Program, Result
from tests.plain import in_plain_words, keep, plain_verdicts

SECONDS = 30
TOLERATED = 0.002


def main() -> int:
    """Run it."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("directory", type=Path)
    options.add_argument("--languages", default="py,sh,php,js,cs,java,cpp,ts")
    options.add_argument("--rows", type=int, help="so many of each language, evenly spread (default: all)")
    options.add_argument("--backend", default="docker")
    options.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    options.add_argument("--plain", type=int, default=5)
    options.add_argument("--busy", type=int, default=2)
    options.add_argument("--jobs", type=int, default=1, help="plain runs at once (default: 1)")
    options.add_argument("--kept", type=Path, help="do not run what this file has, such as tests.plain.KEPT")
    options.add_argument(
        "--keep", action="store_true", help="add what the plain tools say to tests.plain.KEPT"
    )
    asked = options.parse_args()
    programs = [
        program
        for name in asked.languages.split(",")
        for program in read(asked.directory / f"mbpp-{name}.jsonl", name, asked.rows)
    ]
    plain = plain_verdicts(programs, asked.backend, asked.jobs, asked.plain, SECONDS, asked.kept)
    if asked.keep:
        keep(programs, asked.backend, plain)
    unstable = {id for id, verdicts in plain.items() if len(set(verdicts)) > 1}
    for id in sorted(unstable):
        print("unstable", id, plain[id])
    wrong: set[str] = set()
    for n in range(1 + asked.busy):
        with busy(n > 0):
            found = sandbox_results(programs, asked.backend, asked.workers)
        differ = {
            p.id
            for p in programs
            if p.id not in unstable and in_plain_words(found[p.id].verdict) != plain[p.id][0]
        }
        for id in sorted(differ):
            result = found[id]
            how = f"exit code {result.exit_code}, {result.cpu_seconds:.1f} s of CPU in {result.run_seconds:.1f} s, {result.stderr[-200:]!r}"
            state = "busy" if n else "idle"
            print("differs", state, id, "plain:", plain[id][0], "sandbox:", result.verdict, how, flush=True)
        wrong |= differ
    for name, verdicts in by_language(programs, plain).items():
        print(f"{name:<5} {len(verdicts)} programs, {verdicts.count('passed') / len(verdicts):.3f} pass")
    print(f"{len(programs)} programs, {len(unstable)} unstable, {len(wrong)} differ")
    return int(max(len(unstable), len(wrong)) > TOLERATED * len(programs))


def read(path: Path, name: str, rows: int | None) -> Iterator[Program]:
    """The programs of a problem file: each problem with its answer and tests."""
    lines = path.read_text().splitlines()
    step = max(1, len(lines) // rows) if rows else 1
    for line in lines[::step][:rows]:
        row = json.loads(line)
        prompt, body = row["prompt"], row["response"]
        if is_answer(prompt, body, name):
            try:
                prompt, body, _ = extract_program(prompt, body, name, row["tests"])
            except Unreadable as error:
                print("unreadable", f"{row['name']}.{name}:", error)
                continue
        yield assemble(name, prompt, body, row["tests"]).program(f"{row['name']}.{name}", name)


def sandbox_results(programs: list[Program], backend: str, workers: int) -> dict[str, Result]:
    """The results of the sandbox, by id."""
    with Sandbox(backend, workers) as sandbox:  # type: ignore[arg-type]
        return {result.id: result for result in sandbox.run(programs)}


def by_language(programs: list[Program], verdicts: dict[str, list[str]]) -> dict[str, list[str]]:
    """The first verdict of each language's programs."""
    names = dict.fromkeys(program.language for program in programs)
    return {name: [verdicts[p.id][0] for p in programs if p.language == name] for name in names}


@contextmanager
def busy(wanted: bool) -> Iterator[None]:
    """Keep every core busy with other work."""
    others = [multiprocessing.Process(target=spin, daemon=True) for _ in range(os.cpu_count() or 1)]
    try:
        for other in others if wanted else []:
            other.start()
        yield
    finally:
        for other in others if wanted else []:
            other.kill()


def spin() -> None:
    """Work without end."""
    while True:
        sum(range(10_000))


if __name__ == "__main__":
    sys.exit(main())
