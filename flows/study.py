"""Runs the cells of a study, each as `selftrain run` in a process of its own, and writes the study's table.

Cells share the artifacts of equal stages through the store. A finished cell is not run again, unless its stages have new keys.
"""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import yaml

from flows.method import graph, method
from flows.session import open_store, writing
from selftrain.errors import RunError, UsageError
from selftrain.evaluation.compare import finished_run, is_read, study_pools
from selftrain.evaluation.pools import Pool
from selftrain.evaluation.study import study_table
from selftrain.launch.ending import ENDING
from selftrain.plan.plan import Hardware, Plan, make_plan
from selftrain.report.study import markdown, write_study
from selftrain.store.files import replace_file
from selftrain.store.runfile import NAME, read_run
from selftrain.store.store import Store
from selftrain.studyfile import Cell, Study, same
from selftrain.units import count_of, duration
from tasks.run import Run

LOG = "log.txt"
"""File in a cell's folder with the output of its run."""


@dataclass(frozen=True)
class Outline:
    """What a cell will do.

    folder    the cell's folder
    run       its stages with their keys
    shared    names of stages that an earlier cell of the study builds
    finished  whether the folder holds a finished run with these keys, and the store what its table is read from
    """

    cell: Cell
    folder: Path
    run: Run
    shared: tuple[str, ...]
    finished: bool

    @property
    def to_do(self) -> list[str]:
        """Names of the stages that this cell has to build itself."""
        return [name for name in self.run.steps if name not in self.run.cached and name not in self.shared]


def outlines(study: Study, out: Path) -> list[Outline]:
    """The outline of each cell; builds nothing. Raises UsageError if two variants have the same stages, or if no run will have
    one of the study's pools."""
    found: list[Outline] = []
    stores: dict[str, Store] = {}
    tools: dict[tuple[str, str, str | None], dict[str, str]] = {}
    evaluations: dict[str, Cell] = {}
    taken: set[str] = set()
    for cell in study.cells:
        config, runtime = cell.config, cell.config.runtime
        store = stores.get(config.store) or stores.setdefault(config.store, open_store(config))
        # Of the problems: their languages, and those of their checkers, which are in their files.
        machine = (config.problems.model_dump_json(), runtime.backend, runtime.docker_runtime)
        run = Run(config, store, toolchain=tools.setdefault(machine, {}))
        method(run)
        tools[machine] = run.toolchain
        before = evaluations.setdefault(run.steps["evaluate"].ref.key, cell)
        if before is not cell:
            raise UsageError(same(study.path, before.variant, cell.variant))
        keys = {name: str(step.ref) for name, step in run.steps.items()}
        shared = tuple(name for name, key in keys.items() if key in taken and name not in run.cached)
        taken |= set(keys.values())
        folder = out / cell.name
        there = all(name in run.cached for name in run.steps if is_read(name))
        found.append(Outline(cell, folder, run, shared, there and _is_finished(folder, run)))
    pools = dict.fromkeys(pool for one in found for pool in one.run.steps["evaluate"].config.pools)
    if unknown := [pool for pool in study.config.pools if pool not in pools]:
        raise UsageError(
            f"{study.path}: pools: no run has a pool {unknown[0]!r}; there are: {', '.join(pools)}"
        )
    return found


def _is_finished(folder: Path, run: Run) -> bool:
    """Whether `folder` holds a finished run with the keys of `run`."""
    if not (folder / NAME).is_file():
        return False
    with suppress(UsageError):
        record = read_run(folder)
        return bool(record["finished"]) and record["stages"] == run.stages
    return False


def describe(study: Study, found: Sequence[Outline]) -> str:
    """The cells, what each shares, and the planned time of what is to do, as text for the terminal."""
    plans: dict[str, Plan] = {}
    lines = [f"{'cell':<36} {'stages':>6} {'cached':>6} {'shared':>6} {'to do':>6}  planned"]
    total = 0.0
    for outline in found:
        cell = outline.cell
        if cell.variant not in plans:
            plans[cell.variant] = make_plan(cell.config, Hardware(), graph, None, partial(_store_of, outline))
        planned = {step.name: step.seconds for step in plans[cell.variant].steps}
        seconds = sum(planned.get(name, 0.0) for name in outline.to_do)
        total += 0 if outline.finished else seconds
        counts = (len(outline.run.steps), len(outline.run.cached), len(outline.shared), len(outline.to_do))
        said = "finished" if outline.finished else duration(seconds)
        lines.append(f"{cell.name:<36} " + " ".join(f"{count:>6}" for count in counts) + f"  {said}")
    finished = sum(outline.finished for outline in found)
    lines += [
        "",
        f"{count_of(len(found), 'cell')} of study {study.config.name}, {finished} finished; planned for the rest, one after the other: "
        f"{duration(total)} ({total / 3600:.2f} h)",
        *plans[found[0].cell.variant].speed.said,
    ]
    return "\n".join(lines)


def _store_of(outline: Outline) -> Store:
    return outline.run.store


def run_study(study: Study, out: Path, jobs: int, split: str) -> tuple[str, int]:
    """Run the cells that are not finished, `jobs` at a time, and write the table of `split`; returns its Markdown and the number of
    cells that are not in it. A failed cell is reported and does not stop the others. Raises RunError if no cell of the baseline
    is finished, UsageError if another study is at work in `out`."""
    with _alone(out) as lock:
        found = outlines(study, out)
        done = sum(outline.finished for outline in found)
        if done:
            print(f"{done} of {count_of(len(found), 'cell')} are finished already", file=sys.stderr)
        failed = run_cells([outline for outline in found if not outline.finished], jobs, lock)
        return report(study, found, failed, out, split)


@contextmanager
def _alone(out: Path) -> Iterator[int]:
    """Lock the folder `out`; yields the lock's file descriptor. Cells inherit it, so that the lock also holds while a cell lives
    on whose study was killed: two runs in one folder would each call the other's unfinished."""
    if (out / NAME).is_file():
        raise UsageError(f"{out}: this is the folder of a run; choose another for the study with --out")
    with writing(str(out)):
        out.mkdir(parents=True, exist_ok=True)
        lock = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"{out}: another study, or a run that a killed study left, is at work in this folder; wait for it, or end it"
            ) from error
        yield lock
    finally:
        os.close(lock)


def run_cells(waiting: Sequence[Outline], jobs: int, lock: int) -> dict[str, str]:
    """Run cells, `jobs` at a time; returns the name of each failed cell, and why it failed. `lock`: a file descriptor that they
    inherit."""
    queue, failed = list(waiting), dict[str, str]()
    running: dict[subprocess.Popen[bytes], tuple[Outline, float]] = {}
    try:
        while queue or running:
            while queue and len(running) < jobs:
                outline = queue.pop(0)
                running[_start(outline, lock)] = (outline, time.monotonic())
            time.sleep(0.2)
            for process in [process for process in running if process.poll() is not None]:
                outline, began = running.pop(process)
                name, seconds = outline.cell.name, duration(time.monotonic() - began)
                if process.returncode == 0:
                    print(f"{name}: finished in {seconds}", file=sys.stderr, flush=True)
                    continue
                failed[name] = _reason(outline.folder, process.returncode)
                print(f"{name}: failed after {seconds}: {failed[name]}", file=sys.stderr, flush=True)
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()
    return failed


def _start(outline: Outline, lock: int) -> "subprocess.Popen[bytes]":
    """Start `selftrain run` with the cell's config, which is written into its folder."""
    folder = outline.folder
    with writing(str(folder)):
        folder.mkdir(parents=True, exist_ok=True)
        # Only what is set: keys tell a default from the same number given as another type (2000 and 2000.0).
        values = outline.cell.config.model_dump(mode="json", exclude_unset=True)
        replace_file(folder / "config.yaml", yaml.safe_dump(values, sort_keys=False).encode())
        log = (folder / LOG).open("ab")
    command = [sys.executable, "-m", "flows.cli", "run", str(folder / "config.yaml"), "--out", str(folder)]
    path = os.pathsep.join(filter(None, [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH")]))
    print(
        f"{outline.cell.name}: started, {count_of(len(outline.to_do), 'stage')} to build; log: {folder / LOG}",
        file=sys.stderr,
    )
    with log:
        process = subprocess.Popen(
            command,
            env=os.environ | {"PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[lock],
        )
    ENDING.last.append(process.kill)
    return process


def _reason(folder: Path, code: int) -> str:
    """The last line that a failed cell printed; for one that was killed, by which signal."""
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    lines = (folder / LOG).read_text("utf-8", errors="replace").split("\n")
    said = [line for line in lines if line.strip()]
    return said[-1].strip().removeprefix("selftrain: ")[:300] if said else "it printed nothing"


def report(
    study: Study, found: Sequence[Outline], failed: Mapping[str, str], out: Path, split: str
) -> tuple[str, int]:
    """Write the table over the finished cells into `out`; returns it as Markdown, and the number of the other cells."""
    variants: dict[str, dict[int, dict[str, Pool]]] = {}
    missing = dict(failed)
    for outline in found:
        cell = outline.cell
        if cell.name in failed:
            continue
        if not _is_finished(outline.folder, outline.run):
            missing[cell.name] = "not finished"
            continue
        pools = study_pools(finished_run(outline.folder), split)
        variants.setdefault(cell.variant, {})[cell.seed] = pools
    if study.baseline not in variants:
        name, why = next(iter(missing.items()))
        raise RunError(f"no run of the baseline {study.baseline} is finished; {name}: {why}")
    seed = min(study.config.seeds)
    table = study_table(
        variants, study.baseline, split, study.config.pools, study.config.bootstrap, seed, study.differences
    )
    with writing(str(out)):
        write_study(table, study.config.name, out, missing)
    return markdown(table, study.config.name, missing), len(missing)
