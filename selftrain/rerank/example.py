"""Test problems of a finished run, with the programs of its generator and their verdicts, to try a picker on."""

from dataclasses import dataclass
from pathlib import Path

from selftrain.errors import UsageError
from selftrain.records import Candidate, Execution, Problem, read_records
from selftrain.store.runfile import find_run, read_run, stage_place


@dataclass(frozen=True)
class Example:
    """A test problem of a run with its generator's programs, each distinct program once.

    candidates  the programs
    verdicts    the sandbox's verdict on each program
    logprobs    the mean log-probability per token of each, as the generator sampled it, nats; the highest of its copies
    """

    id: str
    prompt: str
    language: str
    candidates: tuple[str, ...]
    verdicts: tuple[str, ...]
    logprobs: tuple[float, ...]


def example(run: str | Path, id: str = "") -> Example:
    """The test problem `id` of a finished run; by default the first problem for which some programs pass and others do not.

    Raises UsageError where the run has no such test problem.
    """
    record = read_run(find_run(run))
    problems = read_records(stage_place(record, "prepare") / "problems.parquet", Problem)
    pool: dict[str, dict[str, str]] = {problem.id: {} for problem in problems if problem.split == "test"}
    executions = stage_place(record, "execute-sft-evaluation") / "executions.parquet"
    verdicts = {row.candidate_id: str(row.verdict) for row in read_records(executions, Execution)}
    means: dict[tuple[str, str], float] = {}
    for row in read_records(stage_place(record, "sample-sft-evaluation") / "candidates.parquet", Candidate):
        if row.sample >= 0 and row.problem_id in pool:
            pool[row.problem_id].setdefault(row.completion, verdicts[row.id])
            mean, key = row.logprob / max(1, len(row.token_ids)), (row.problem_id, row.completion)
            means[key] = max(mean, means.get(key, mean))
    mixed = [
        name for name, found in pool.items() if "passed" in found.values() and len(set(found.values())) > 1
    ]
    chosen = id or next(iter(mixed or pool))
    if not pool.get(chosen):
        raise UsageError(
            f"{id}: no test problem of the run; expected one such as {', '.join(mixed[:3] or list(pool)[:3])}"
        )
    problem = next(problem for problem in problems if problem.id == chosen)
    found = pool[chosen]
    logprobs = tuple(means[chosen, text] for text in found)
    return Example(chosen, problem.prompt, problem.language, tuple(found), tuple(found.values()), logprobs)
