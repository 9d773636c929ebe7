"""Stage `execute`: candidates -> executions. Runs a pool's candidates against their problems' tests in the sandbox."""

import socket
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

from sandbox.cache import VerdictCache
from sandbox.languages import language as row_of
from sandbox.libraries import counted, note
from sandbox.programs import assemble
from sandbox.twin import chosen
from sandbox.verdicts import (
    LARGEST_MEMORY_BYTES,
    LONGEST_SECONDS,
    MIB,
    Case,
    Checker,
    Limits,
    Program,
    Result,
    Verdict,
)
from selftrain.config import ExecuteConfig, Strict
from selftrain.errors import SandboxFailed, UsageError
from selftrain.problems.chat import source_of
from selftrain.records import (
    CandidateText,
    Execution,
    Problem,
    PromptStyle,
    Writer,
    read_records,
    row_count,
    slice_records,
    write_records,
)
from selftrain.stage import Context, Judge, Outcome, Stage
from selftrain.store.store import PROGRESS
from selftrain.units import count_of

EXAMPLES = "/examples"
"""Suffix of the id of a program that runs the examples of the prompt."""
OUTPUT_KEPT = 2000
"""Number of characters at the end of a program's output that the record contains."""
SMALLEST_MEMORY_BYTES = 128 * MIB
"""Lower bound of a scaled memory limit; some interpreters do not start with less."""


class ExecuteSlice(Strict):
    """What verdicts depend on besides problems and candidates.

    toolchain     language of programs and checkers -> the sandbox's identity for it
    prompt_style  how the candidates were asked for; in style `chat` a completion may be a whole program
    """

    keyed_when_set = frozenset({"prompt_style"})

    execute: ExecuteConfig
    toolchain: dict[str, str]
    prompt_style: PromptStyle = "completion"


def toolchain_of(sandbox: Judge, language: str) -> str:
    """The backend and the sandbox's identity for `language`, as they enter cache keys."""
    return f"{sandbox.backend}: {sandbox.identity(language)}"


def shard_name(number: int) -> str:
    """The name of the file that stores the executions of shard `number`: `execute.shard` candidates."""
    return f"executions-{number:05d}.parquet"


def shard_names(context: Context) -> list[str]:
    """The names of all shards' files."""
    rows = row_count(context.inputs["candidates"] / "candidates.parquet")
    return [shard_name(number) for number in range(-(-rows // context.config.execute.shard))]


def check_toolchain(sandbox: Judge, config: ExecuteSlice) -> None:
    """Raise UsageError if this machine's toolchain is not the one in the stage's key."""
    for language, expected in config.toolchain.items():
        found = toolchain_of(sandbox, language)
        if found != expected:
            raise UsageError(
                f"the sandbox of {socket.gethostname()} is not that of the run: {language} here is {found!r}, there {expected!r}; "
                "use the same image, or the same versions, on all machines"
            )


def run(context: Context) -> Outcome:
    """Reads `problems` and `candidates`; writes executions.parquet."""
    config: ExecuteSlice = context.config
    problems = {p.id: p for p in read_records(context.inputs["problems"] / "problems.parquet", Problem)}
    candidates = context.inputs["candidates"] / "candidates.parquet"
    size, rows_there = config.execute.shard, row_count(candidates)
    starts = {shard_name(number): start for number, start in enumerate(range(0, rows_there, size))}
    shards = {name: start for name, start in starts.items() if context.wants(name)}
    folder = context.folder / PROGRESS
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = {}  # executions with failures of the sandbox, which a retry judges again
    total = min(rows_there, len(shards) * size)
    with context.sandbox() as sandbox, known_verdicts(context) as cache:
        if context.only is not None:
            check_toolchain(sandbox, config)
        for number, (name, start) in enumerate(shards.items()):
            if (folder / name).is_file():
                continue
            shard = slice_records(candidates, CandidateText, start, start + size)
            progress = partial(show, context, before=number * size, total=total)
            rows = judged(context, problems, shard, sandbox, cache, progress)
            if not store_shard(folder / name, rows):
                unfinished[name] = rows
            context.progress(min((number + 1) * size, total), total, "programs")
    tally = Tally(problems)
    merged = context.folder / "executions.parquet"
    opened: AbstractContextManager[Writer | None] = (
        Writer(merged, Execution) if context.only is None else nullcontext()
    )
    with opened as writer:
        for name in shards:
            rows = unfinished[name] if name in unfinished else read_records(folder / name, Execution)
            tally.add(rows)
            if writer is not None:
                writer.add(rows)
        tally.check(config.execute)
    return Outcome("") if writer is None else Outcome(writer.digest, tally.metrics())


def judged(
    context: Context,
    problems: Mapping[str, Problem],
    shard: Sequence[CandidateText],
    sandbox: Judge,
    cache: VerdictCache | None,
    progress: Callable[[Mapping[str, Result]], None],
) -> list[Execution]:
    """The executions of a shard's candidates."""
    config: ExecuteSlice = context.config
    results = judge(programs_of(problems, shard, config), sandbox, cache, progress)
    return [execution(problems[c.problem_id], c.id, results, config.execute.every_case) for c in shard]


def programs_of(
    problems: Mapping[str, Problem], candidates: Iterable[CandidateText], config: ExecuteSlice
) -> list[Program]:
    """The programs to run for the candidates."""
    found = [
        program
        for c in candidates
        for program in programs(
            problems[c.problem_id], c.id, c.completion, config.execute, config.prompt_style
        )
    ]
    if config.execute.every_case:
        found = [replace(program, every_case=bool(program.cases)) for program in found]
    return found


def store_shard(path: Path, rows: Sequence[Execution]) -> bool:
    """Store a shard's executions, unless the sandbox failed on one; returns whether they are stored."""
    if not all(row.verdict.is_label for row in rows):
        return False
    part = path.with_suffix(".part")
    write_records(part, rows, Execution)
    part.rename(path)
    return True


@contextmanager
def known_verdicts(context: Context) -> Iterator[VerdictCache | None]:
    """Open the cache of verdicts in `context.shared`, since pools of one run share many programs. None without that folder."""
    if context.shared is None:
        yield None
        return
    with closing(VerdictCache(context.shared / "verdicts.sqlite", context.config.toolchain)) as cache:
        yield cache


def show(context: Context, results: Mapping[str, Result], before: int, total: int) -> None:
    """Report progress in candidates: `before`, the number in finished shards, plus those of this shard with a result."""
    done = sum(not id.endswith(EXAMPLES) for id in results)
    context.progress(before + done, total, "programs")


def judge(
    wanted: list[Program],
    sandbox: Judge,
    cache: VerdictCache | None,
    progress: Callable[[Mapping[str, Result]], None],
) -> dict[str, Result]:
    """Program id -> result, from the cache if it has the program, otherwise from the sandbox."""
    results = cache.find(wanted) if cache is not None else {}
    fresh = {program.id: program for program in wanted if program.id not in results}
    judged = []
    for result in sandbox.run(fresh.values()):
        results[result.id] = result
        judged.append((fresh[result.id], result))
        if len(results) % 50 == 0:
            progress(results)
    if cache is not None:
        cache.keep(judged)
    progress(results)
    return results


def programs(
    problem: Problem, id: str, text: str, config: ExecuteConfig, style: PromptStyle = "completion"
) -> Iterator[Program]:
    """The programs to run for the completion `text`: one, `id`, with the tests; if the prompt shows examples, one with these."""
    language, limits = problem.language, limits_for(problem, config)
    prompt, text = source_of(problem.prompt, text, style)
    if problem.cases:
        cases = tuple(Case(case["stdin"], case["stdout"]) for case in problem.cases)
        checker = (
            Checker(problem.checker["language"], problem.checker["program"]) if problem.checker else None
        )
        source = prompt + text
        yield Program(id, language, source, cases, None, limits, problem.compare, checker)
    else:
        made = assemble(language, prompt, text, problem.tests)
        yield made.program(id, language, limits, chosen(config.audit, made.source))
    if problem.example_tests:
        made = assemble(language, prompt, text, problem.example_tests)
        yield made.program(id + EXAMPLES, language, limits)


def limits_for(problem: Problem, config: ExecuteConfig) -> Limits | None:
    """Limits from the problem (scaled), else from the config; None: the language's defaults."""
    seconds, size = config.cpu_seconds, config.memory_bytes
    if problem.time_limit and config.time_scale:
        seconds = min(problem.time_limit * config.time_scale, LONGEST_SECONDS)
    if problem.memory_limit_bytes and config.memory_scale:
        scaled = int(problem.memory_limit_bytes * config.memory_scale)
        size = min(max(scaled, SMALLEST_MEMORY_BYTES), LARGEST_MEMORY_BYTES)
    if seconds is None and size is None:
        return None
    limits = row_of(problem.language).limits
    limits = limits.with_cpu(seconds) if seconds is not None else limits
    return replace(limits, memory_bytes=size) if size is not None else limits


def execution(problem: Problem, id: str, results: dict[str, Result], every_case: bool) -> Execution:
    """The record of the results of the candidate `id`. `every_case`: whether all cases of a problem were run."""
    result, examples = results[id], results.get(id + EXAMPLES)
    every = every_case and problem.cases and result.verdict.is_label
    judged = examples is not None and examples.verdict.is_label
    return Execution(
        candidate_id=id,
        problem_id=problem.id,
        verdict=result.verdict,
        exit_code=result.exit_code,
        examples_passed=examples.verdict is Verdict.passed if examples is not None and judged else None,
        pass_rate=(result.pass_rate or 0.0) if every else None,  # without a run if it did not compile
        cpu_seconds=result.cpu_seconds,
        wall_seconds=result.compile_seconds + result.run_seconds,
        peak_memory_bytes=result.peak_memory_bytes,
        output=(result.stdout + result.stderr)[-OUTPUT_KEPT:],
    )


class Tally:
    """Counts executions: the stage's metrics, and the failures of the sandbox."""

    def __init__(self, problems: Mapping[str, Problem]) -> None:
        self._problems = problems
        self._verdicts: Counter[str] = Counter()
        self._programs: Counter[str] = Counter()
        self._passed: Counter[str] = Counter()
        self._notes: Counter[str] = Counter()
        self._seconds = 0.0
        self._failed: list[Execution] = []

    def add(self, rows: Iterable[Execution]) -> None:
        """Count `rows`."""
        for row in rows:
            language = self._problems[row.problem_id].language
            self._verdicts[str(row.verdict)] += 1
            self._programs[language] += 1
            self._passed[language] += row.passed
            self._notes[note(row_of(language), row.verdict, row.exit_code, "", row.output)] += 1
            self._seconds += row.cpu_seconds
            if not row.verdict.is_label:
                self._failed.append(row)

    def check(self, config: ExecuteConfig) -> None:
        """Raise SandboxFailed if the sandbox could not judge more than the share `execute.tolerated_errors` of the programs."""
        total, failed = self._programs.total(), self._failed
        if len(failed) > config.tolerated_errors * total:
            raise SandboxFailed(
                f"the sandbox itself failed on {len(failed)} of {count_of(total, 'program')}, more than execute.tolerated_errors="
                f"{config.tolerated_errors:g}; what was judged is kept. First: {failed[0].candidate_id}: {failed[0].output[-300:]}"
            )

    def metrics(self) -> dict[str, object]:
        """Verdicts, pass rate by language, CPU seconds, and the libraries that programs lacked, if there are any."""
        lacking = counted(self._notes.elements())
        rates = {language: self._passed[language] / rows for language, rows in sorted(self._programs.items())}
        return {
            "programs": self._programs.total(),
            "verdicts": dict(sorted(self._verdicts.items())),
            "pass_rate": rates,
            "cpu_seconds": self._seconds,
        } | ({"dependency_missing": lacking} if lacking else {})


EXECUTE = Stage("execute", 2, run, shard_names)
