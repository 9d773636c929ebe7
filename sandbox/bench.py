"""`python -m sandbox bench`: CPU time and wall time per program, by language, against what one would do without a sandbox.

    plain       the plain commands with no warm helper and no isolation: a fresh process per program, as many at once as the
                sandbox has workers
    docker run  one container per program (only where backend docker can be had)
    ours        the sandbox, its verdict cache off

CPU time is that of the whole machine while each of them runs (/proc/stat), daemons included, so that nothing hides: run it on
a machine that does nothing else. Ratios above 1 say that ours takes less.
"""

import collections
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sandbox.backends import docker
from sandbox.client import Sandbox
from sandbox.headers import PLAIN
from sandbox.languages import PATH, entry, heap_mib, language
from sandbox.verdicts import Program

_TICK = os.sysconf("SC_CLK_TCK")
_SECONDS = 60


@dataclass(frozen=True)
class Cost:
    """Of one program, in ms, on average."""

    wall: float
    cpu: float

    def __str__(self) -> str:
        return f"{self.cpu:7.0f} {self.wall:7.0f}"


def bench(programs: Sequence[Program], backend: str, workers: int) -> list[str]:
    """Measure `programs`, by language; lines of a table. Raises `SandboxError`."""
    lines = [
        f"{'ms per program':<16} {'plain':>15}  {'docker run':>15}  {'ours':>15}  {'plain/ours':>11} {'docker/ours':>12}",
        f"{'':<16} " + "  ".join([f"{'CPU':>7} {'wall':>7}"] * 3) + f"  {'CPU':>11} {'CPU':>12}",
    ]
    totals: list[tuple[Cost, Cost]] = []
    with Sandbox(backend, workers) as sandbox:  # type: ignore[arg-type]
        for name in dict.fromkeys(program.language for program in programs):
            own = [program for program in programs if program.language == name]
            sandbox.need(name)
            list(sandbox.run(own[:workers]))  # start what stays warm
            ours = measured(len(own), partial(collections.deque, sandbox.run(own), 0))
            plain = measured(len(own), partial(in_parallel, run_plain, own, workers))
            contained = None
            if sandbox.backend == docker.NAME:
                few = own[: max(workers, 10)]
                contained = measured(len(few), partial(in_parallel, run_container, few, workers))
                totals.append((contained, ours))
            ratio = f"{contained.cpu / ours.cpu:12.1f}" if contained else f"{'-':>12}"
            lines.append(
                f"{name:<4} {len(own):>5} programs {plain}  {contained or '-':>15}  {ours}  {plain.cpu / ours.cpu:11.1f} {ratio}"
            )
    if totals:
        over_all = sum(contained.cpu for contained, _ in totals) / sum(ours.cpu for _, ours in totals)
        lines.append(f"docker run / ours over all languages: {over_all:.1f}")
    return lines


def measured(count: int, work: Callable[[], object]) -> Cost:
    """What `work` costs, per program."""
    cpu, wall = machine_cpu_seconds(), time.monotonic()
    work()
    return Cost(1000 * (time.monotonic() - wall) / count, 1000 * (machine_cpu_seconds() - cpu) / count)


def machine_cpu_seconds() -> float:
    """CPU time that all processes of this machine have used so far, and the kernel for them."""
    with open("/proc/stat") as file:
        user, nice, system, _idle, _wait, hard, soft = map(int, file.readline().split()[1:8])
    return (user + nice + system + hard + soft) / _TICK


def in_parallel(work: Callable[[Program], object], programs: Sequence[Program], workers: int) -> None:
    """`work` on each program, `workers` at once."""
    with ThreadPoolExecutor(workers) as threads:
        list(threads.map(work, programs))


def commands(program: Program, directory: str) -> list[list[str]]:
    """The plain commands that compile and run a program in `directory`."""
    row = language(program.language)
    values = {
        "dir": directory,
        "entry": entry(row, program.source),
        "heap": str(heap_mib(program.limits or row.limits)),
        "header": PLAIN,
    }
    found = [row.compile, row.run] if row.compile else [row.run]
    return [[part.format(**values) for part in argv] for argv in found if argv]


def source_file(program: Program, directory: str) -> Path:
    """The program's source, written into `directory`."""
    row = language(program.language)
    path = Path(directory, row.file.format(entry=entry(row, program.source)))
    path.write_text(program.source, errors="replace")
    return path


def run_plain(program: Program) -> None:
    """The plain commands, one after the other, whatever they say."""
    with tempfile.TemporaryDirectory() as directory:
        source_file(program, directory)
        for argv in commands(program, directory):
            try:
                done = subprocess.run(
                    argv,
                    env={"PATH": PATH},
                    cwd=directory,
                    capture_output=True,
                    timeout=_SECONDS,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                return
            if done.returncode != 0:
                return


def run_container(program: Program) -> None:
    """A container for this program alone, as `docker run --rm` makes it."""
    from docker.errors import DockerException

    client = docker.connect()
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o777)
        source_file(program, directory)
        script = " && ".join(" ".join(f"'{part}'" for part in argv) for argv in commands(program, "/w"))
        try:
            client.containers.run(
                docker.image_digest(client),
                entrypoint=["sh", "-c", script],
                volumes={directory: {"bind": "/w", "mode": "rw"}},
                network_mode="none",
                remove=True,
            )
        except DockerException:
            return  # the program failed; that costs the same
