"""Benchmark: CPU time and wall time per program in the sandbox, by language, against running programs without a sandbox.

    python -m tests.bench.sandbox [PROGRAMS.jsonl] [--backend docker] [--workers 2]

Programs are rows as `python -m sandbox judge` takes them; without a file, real MultiPL-E problems with a model's answers
($MULTIPL_E_DIR/mbpp-LANG.jsonl).

    plain       a fresh compiler and process per program, as many at once as the sandbox has workers; for backend docker all
                in one container of the same image (tests.bench.plain)
    docker run  one container per program (only with backend docker)
    ours        the sandbox, without a verdict cache

CPU time is that of the whole machine (/proc/stat), daemons included, so run this on an idle machine. Ratios above 1 are in
the sandbox's favour. Goals, plain / ours: py 5, ts 12, java 3, cpp 3, js and cs 0.9, php 0.7, sh 0.5; docker run / ours over
all languages: 8.
"""

import argparse
import collections
import os
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import get_args

from sandbox import classfiles
from sandbox.backends import docker
from sandbox.client import Backend, Sandbox
from sandbox.languages import language
from sandbox.processes import resident_bytes
from sandbox.rows import read_rows
from sandbox.verdicts import MIB, Program, Verdict
from tests.bench.plain import Plain, filled, written
from tests.truth import read

_TICK = os.sysconf("SC_CLK_TCK")
_MANY = 10_000
_LONG_SECONDS = 1.0
_CLASSFILES = Path(classfiles.__file__)
_ROUNDS = 3
"""Each measures all three, one after the other: a machine's speed drifts."""
ROWS = {"py": 200, "php": 120, "sh": 240}
"""Problems per language; of others 40. Quick programs need more, for CPU time is counted in ticks of 10 ms."""
LANGUAGES = ("py", "ts", "java", "cpp", "js", "cs", "php", "sh")


def main(arguments: Sequence[str] = ()) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.sandbox")
    parser.add_argument("programs", type=Path, nargs="?", metavar="PROGRAMS.jsonl")
    parser.add_argument("--backend", choices=get_args(Backend), default="auto")
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args(arguments)
    directory = os.environ.get("MULTIPL_E_DIR")
    if asked.programs:
        programs = [row.program for row in read_rows(asked.programs) if not row.known]
    elif directory:
        files = ((name, Path(directory, f"mbpp-{name}.jsonl")) for name in LANGUAGES)
        programs = [program for name, path in files for program in read(path, name, ROWS.get(name, 40))]
    else:
        print("skipped: set MULTIPL_E_DIR to a folder with mbpp-LANG.jsonl files")
        return
    for line in bench(programs, asked.backend, asked.workers):
        print(line, flush=True)


@dataclass(frozen=True)
class Cost:
    """Average cost of a program, in ms."""

    wall: float
    cpu: float

    def __str__(self) -> str:
        return f"{self.cpu:7.0f} {self.wall:7.0f}"


def bench(programs: Sequence[Program], backend: Backend, workers: int) -> Iterator[str]:
    """Measure `programs` by language; yields the lines of a table. Raises `SandboxError`."""
    yield f"{'ms per program':<24} {'plain':>15}  {'docker run':>15}  {'ours':>15}  {'plain/ours':>11} {'docker/ours':>12}"
    yield (
        f"{'programs, ours/plain':<24} "
        + "  ".join([f"{'CPU':>7} {'wall':>7}"] * 3)
        + f"  {'CPU':>11} {'CPU':>12}"
    )
    totals: list[tuple[Cost, Cost]] = []
    measured_ones: list[Program] = []
    with Sandbox(backend, workers) as sandbox:
        for name in dict.fromkeys(program.language for program in programs):
            own = [program for program in programs if program.language == name]
            sandbox.need(name)
            plainly = Plain(sandbox.backend, workers, language(name).image)
            # This also starts what stays warm, and tells whether both did the same work.
            results = {result.id: result for result in sandbox.run(own)}
            # One that computes for long says little of what is around it, and an endless one never ends in a container of its own.
            own = [program for program in own if results[program.id].run_seconds < _LONG_SECONDS]
            measured_ones += own
            ours_pass = sum(results[program.id].verdict is Verdict.passed for program in own)
            plain_pass = sum(said == ["passed"] for _, said in plainly.run(own))
            few = own[: max(workers, 10)] if sandbox.backend == docker.NAME else []
            costs = [
                (
                    measured(own, partial(exhaust, sandbox.run)),
                    measured(own, partial(exhaust, plainly.run)),
                    measured(few, partial(in_parallel, run_container, workers)),
                )
                for _ in range(_ROUNDS)
            ]
            plainly.close()
            ours, plain, contained = map(mean, zip(*costs, strict=True))
            totals.append((contained, ours))
            ratio = f"{contained.cpu / ours.cpu:12.1f}" if few else f"{'-':>12}"
            yield (
                f"{name:<5} {f'{len(own)}, {ours_pass}/{plain_pass} pass':>18} {plain}  {contained if few else '-'!s:>15}  {ours}  {plain.cpu / ours.cpu:11.2f} {ratio}"
            )
        yield many(sandbox, measured_ones)
    if sandbox.backend == docker.NAME:
        over_all = sum(contained.cpu for contained, _ in totals) / sum(ours.cpu for _, ours in totals)
        yield f"docker run / ours over all languages: {over_all:.1f}"


def many(sandbox: Sandbox, programs: Sequence[Program]) -> str:
    """Judge `_MANY` programs, variants of the given ones with a comment added; reports the rate and the growth of this process."""
    quick = [program for program in programs if program.language == "py"] or list(programs)
    comment = "#" if quick[0].language in ("py", "sh", "rb", "pl", "r", "ex") else "//"
    different = (
        replace(quick[n % len(quick)], source=f"{quick[n % len(quick)].source}\n{comment} {n}\n", id=str(n))
        for n in range(_MANY)
    )
    sizes, started = [], time.monotonic()
    for done, _ in enumerate(sandbox.run(different), 1):
        if done in (_MANY // 2, _MANY):
            sizes.append(resident_bytes(os.getpid()) / MIB)
    rate = _MANY / (time.monotonic() - started)
    return f"{_MANY} programs ({quick[0].language}): {rate:.0f}/s; this process holds {sizes[0]:.1f} MiB after half of them, {sizes[1]:.1f} at the end"


def measured(programs: Sequence[Program], work: Callable[[Sequence[Program]], object]) -> Cost:
    """The cost of `work` per program."""
    cpu, wall = machine_cpu_seconds(), time.monotonic()
    work(programs)
    count = max(len(programs), 1)
    return Cost(1000 * (time.monotonic() - wall) / count, 1000 * (machine_cpu_seconds() - cpu) / count)


def mean(costs: Iterable[Cost]) -> Cost:
    """The mean of costs."""
    walls, cpus = zip(*((cost.wall, cost.cpu) for cost in costs), strict=True)
    return Cost(sum(walls) / len(walls), sum(cpus) / len(cpus))


def machine_cpu_seconds() -> float:
    """CPU time that all processes of this machine and the kernel have used so far."""
    with open("/proc/stat") as file:
        user, nice, system, _idle, _wait, hard, soft = map(int, file.readline().split()[1:8])
    return (user + nice + system + hard + soft) / _TICK


def exhaust(work: Callable[[Sequence[Program]], Iterator[object]], programs: Sequence[Program]) -> None:
    """Read all that `work` yields."""
    collections.deque(work(programs), 0)


def in_parallel(work: Callable[[Program], object], workers: int, programs: Sequence[Program]) -> None:
    """`work` on each program, `workers` at once."""
    with ThreadPoolExecutor(workers) as threads:
        list(threads.map(work, programs))


def run_container(program: Program) -> None:
    """Run a program in its own container, as `docker run --rm` does."""
    from docker.errors import DockerException

    client = docker.connect()
    with tempfile.TemporaryDirectory() as directory:
        row, values = written(program, directory, "/w")
        values["entry"] = "ENTRY"
        shutil.copy(_CLASSFILES, directory)
        script = " && ".join(shlex.join(filled(argv, values)) for argv in (row.compile, row.run) if argv)
        named = "import classfiles, pathlib; print(classfiles.main_class(pathlib.Path('/w')))"
        script = script.replace("ENTRY", f'"$(cd /w && python3 -c {shlex.quote(named)})"')
        try:
            client.containers.run(
                docker.image_digest(client, row.image),
                entrypoint=["sh", "-c", script],
                volumes={directory: {"bind": "/w", "mode": "rw"}},
                network_mode="none",
                remove=True,
            )
        except DockerException:
            return  # the program failed; that costs the same


if __name__ == "__main__":
    main(sys.argv[1:])
