"""Pools: the candidates of one generator for a set of problems, with the sandbox's verdicts and rerankers' scores."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from sandbox.verdicts import Verdict
from selftrain.errors import UsageError
from selftrain.evaluation.scores import Scores, rows_of
from selftrain.records import Candidate, Execution, Problem, iter_columns, read_records, table

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

SHUFFLED = "~shuffled"
"""Suffix of a control: the ranker's scores of the candidates with the prompt of another problem."""
WITH_LOGPROB = "+logprob"
"""Suffix of a ranker whose score is the reranker's score + weight x mean log-probability per token."""


AGREEMENT = "agreement"
"""The ranker that picks from the largest group of programs with equal outputs."""
WITH_AGREEMENT = f"+{AGREEMENT}"
"""Suffix of a ranker that picks from the largest group by the reranker's score."""


class Texts(Sequence[str]):
    """Texts in an Arrow array, which become Python's where they are read."""

    def __init__(self, column: Any) -> None:
        self._column = column

    def __len__(self) -> int:
        return len(self._column)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[str]: ...
    def __getitem__(self, at: int | slice) -> str | Sequence[str]:
        return Texts(self._column[at]) if isinstance(at, slice) else str(self._column[int(at)])

    def __iter__(self) -> Iterator[str]:
        return iter(self._column.to_pylist())


@dataclass(frozen=True, eq=False)
class PoolProblem:
    """One problem and its n candidates, in sampling order.

    completions      [n] the text that the generator wrote after the prompt
    verdicts         [n] the sandbox's verdicts, never `sandbox_error`
    logprob          [n] log-probability, summed over the tokens, nats
    n_tokens         [n] number of sampled tokens
    examples_passed  [n] whether the candidate passes the examples in the prompt; None where the prompt has no examples
    scores           ranker -> [n] scores; higher is better
    greedy_passed    whether the greedy completion passes; None where there is none or the sandbox could not judge it
    """

    id: str
    task: str
    language: str
    prompt: str
    completions: Sequence[str]
    verdicts: tuple[Verdict, ...]
    logprob: Floats
    n_tokens: NDArray[np.int64]
    examples_passed: Bools | None
    scores: Mapping[str, Floats]
    greedy_passed: bool | None

    def __post_init__(self) -> None:
        n = len(self.completions)
        if n == 0:
            raise ValueError(f"{self.id}: no candidates, expected at least one")
        columns = {
            "verdicts": self.verdicts,
            "logprob": self.logprob,
            "n_tokens": self.n_tokens,
            **self.scores,
        }
        for name, column in columns.items():
            if len(column) != n:
                raise ValueError(f"{self.id}: {len(column)} {name} for {n} completions, expected as many")
        for name, column in {"logprob": self.logprob, **self.scores}.items():
            if not np.isfinite(column).all():
                raise ValueError(f"{self.id}: {name} must be finite, got {column}")

    @cached_property
    def passed(self) -> Bools:
        """[n] whether each candidate passed all tests."""
        return np.array([verdict is Verdict.passed for verdict in self.verdicts])

    @cached_property
    def mean_logprob(self) -> Floats:
        """[n] mean log-probability per token, nats."""
        return self.logprob / np.maximum(self.n_tokens, 1)

    @cached_property
    def orders(self) -> dict[str, NDArray[np.intp]]:
        """Ranking rule -> [n] indices of the candidates, best first; ties go to the lowest index.

        logprob      by mean log-probability per token
        logprob_sum  by log-probability, summed over the tokens
        examples     candidates that pass the prompt's examples first, then by mean log-probability
        RANKER       by score
        """
        right = np.zeros(len(self.completions)) if self.examples_passed is None else self.examples_passed
        return {
            "logprob": np.argsort(-self.mean_logprob, kind="stable"),
            "logprob_sum": np.argsort(-self.logprob, kind="stable"),
            "examples": np.lexsort((-self.mean_logprob, ~right.astype(bool))),
            **{ranker: np.argsort(-scores, kind="stable") for ranker, scores in self.scores.items()},
        }

    @cached_property
    def picks(self) -> dict[str, int]:
        """Ranking rule -> index of the candidate that it picks: the first of `orders`, and by the rule

        majority  the most frequent program, white space at the end ignored; ties go to the highest mean log-probability
        """
        programs = [completion.rstrip() for completion in self.completions]
        votes = Counter(programs)
        most = max(range(len(programs)), key=lambda i: (votes[programs[i]], self.mean_logprob[i]))
        return {way: int(order[0]) for way, order in self.orders.items()} | {"majority": most}


@dataclass(frozen=True, eq=False)
class Pool:
    """The candidates of one generator (`sft`, `ppo-1`, ...) for a set of problems.

    unjudged  number of candidates left out because the sandbox failed on them
    """

    name: str
    problems: tuple[PoolProblem, ...]
    unjudged: int = 0

    @property
    def tampered(self) -> int:
        """Number of candidates that tampered with their tests."""
        return sum(problem.verdicts.count(Verdict.tampered) for problem in self.problems)

    def __post_init__(self) -> None:
        if not self.problems:
            raise UsageError(f"pool {self.name}: no problem with a judged candidate, expected at least one")
        if len({problem.id for problem in self.problems}) < len(self.problems):
            raise ValueError(f"pool {self.name}: problem ids must be unique")
        if len({tuple(problem.scores) for problem in self.problems}) > 1:
            raise ValueError(f"pool {self.name}: every problem must be scored by the same rankers")

    @property
    def rankers(self) -> tuple[str, ...]:
        """Names of the rankers that scored the pool, controls included, in the order in which they were given."""
        return tuple(self.problems[0].scores)

    @property
    def tasks(self) -> int:
        """Number of tasks, each of which may be a problem in several languages."""
        return len({problem.task for problem in self.problems})

    def only(self, language: str) -> "Pool":
        """The pool restricted to the problems of one language."""
        return replace(self, problems=tuple(p for p in self.problems if p.language == language))


def make_pool(
    name: str,
    problems: Sequence[Problem],
    candidates: Sequence[Candidate],
    executions: Sequence[Execution],
    scores: Mapping[str, Mapping[str, float]],
) -> Pool:
    """Build a pool from records.

    scores  ranker -> candidate id -> score; greedy candidates (sample -1) need no score

    Candidates that the sandbox could not judge are left out and counted in `unjudged`. Problems without a judged candidate
    are left out. Raises `KeyError` where a candidate has no execution, no score, or no problem in `problems`.
    """
    sampled = _compact(table(candidates, Candidate))
    return _pool(name, problems, sampled, table(executions, Execution), scores)


def load_pool(
    inputs: Mapping[str, Path], name: str, split: str, scores: Mapping[str, Mapping[str, float]]
) -> Pool:
    """Read the pool `name` for the problems of `split`. `inputs`: role -> artifact folder, as in stage `evaluate`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    problems = [p for p in read_records(inputs["problems"] / "problems.parquet", Problem) if p.split == split]
    ids = pa.array([problem.id for problem in problems], pa.string())

    def read(path: Path, kind: type, names: Sequence[str], change: Callable[[Any], Any]) -> Any:
        parts = [change(table([], kind).select(names))]
        for rows in iter_columns(path, kind, names):
            parts.append(change(rows.filter(pc.is_in(rows["problem_id"], value_set=ids))))
        # An older file may lack columns.
        return pa.concat_tables(parts, promote_options="default").combine_chunks()

    of_candidates = ("id", "problem_id", "sample", "completion", "logprob", "token_ids")
    path = inputs[f"{name}.candidates"] / "candidates.parquet"
    candidates = read(path, Candidate, of_candidates, _compact)
    of_executions = ("candidate_id", "problem_id", "verdict", "examples_passed")
    path = inputs[f"{name}.executions"] / "executions.parquet"
    executions = read(path, Execution, of_executions, lambda rows: rows)
    return _pool(name, problems, candidates, executions, scores)


def _compact(rows: Any) -> Any:
    """Candidates with the number of their tokens in place of the tokens, and texts of any length together."""
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = rows.append_column("n_tokens", pc.list_value_length(rows["token_ids"]).cast(pa.int64()))
    texts = rows["completion"].cast(pa.large_string())
    rows = rows.set_column(rows.schema.get_field_index("completion"), "completion", texts)
    return rows.select(["id", "problem_id", "sample", "completion", "logprob", "n_tokens"])


def _pool(
    name: str,
    problems: Sequence[Problem],
    candidates: Any,
    executions: Any,
    scores: Mapping[str, Mapping[str, float]],
) -> Pool:
    """The pool of two Arrow tables: of candidates, as `_compact` makes it, and of their executions."""
    import pyarrow as pa

    owner = rows_of(candidates["problem_id"], pa.array([problem.id for problem in problems], pa.string()))
    found = executions.take(rows_of(candidates["id"], executions["candidate_id"]))
    sample = candidates["sample"].to_numpy()
    verdicts = [Verdict(verdict) for verdict in found["verdict"].to_pylist()]
    judged = np.array([verdict.is_label for verdict in verdicts], bool)
    order = np.lexsort((sample, owner))
    greedy = {
        int(owner[row]): verdicts[row] is Verdict.passed for row in order[(judged & (sample < 0))[order]]
    }
    rows = order[(judged & (sample >= 0))[order]]
    ends = np.searchsorted(owner[rows], np.arange(len(problems) + 1))
    if not np.array_equal(rows, np.arange(len(candidates))):
        candidates, found = candidates.take(rows).combine_chunks(), found.take(rows).combine_chunks()
    texts, ids = candidates["completion"].combine_chunks(), candidates["id"].combine_chunks()
    logprob, n_tokens = candidates["logprob"].to_numpy(), candidates["n_tokens"].to_numpy()
    examples = found["examples_passed"].combine_chunks()
    known, right = examples.is_valid().to_numpy(False), examples.fill_null(False).to_numpy(False)
    columns = {ranker: Scores.made(each).of(ids).astype(float) for ranker, each in scores.items()}

    def with_candidates(at: int) -> PoolProblem:
        problem, mine = problems[at], slice(ends[at], ends[at + 1])
        return PoolProblem(
            id=problem.id,
            task=problem.task,
            language=problem.language,
            prompt=problem.prompt,
            completions=Texts(texts[mine]),
            verdicts=tuple(verdicts[row] for row in rows[mine]),
            logprob=logprob[mine],
            n_tokens=n_tokens[mine],
            examples_passed=right[mine] if known[mine].any() else None,
            scores={ranker: values[mine] for ranker, values in columns.items()},
            greedy_passed=greedy.get(at),
        )

    judged_problems = tuple(with_candidates(at) for at in range(len(problems)) if ends[at] < ends[at + 1])
    return Pool(name, judged_problems, int((~judged).sum()))


def with_logprob(pool: Pool, weights: Mapping[str, float]) -> Pool:
    """The pool with a further ranker `R+logprob` for every ranker R in `weights`, and for R's control if the pool has one.

    Its score is R's score + weight x mean log-probability per token. This follows LEVER, which multiplies the
    probabilities of generator and verifier (Ni et al. 2023).
    """

    def combined(problem: PoolProblem) -> PoolProblem:
        scores: dict[str, Floats] = {}
        for name, values in problem.scores.items():
            scores[name] = values
            ranker = name.removesuffix(SHUFFLED)
            if ranker in weights:
                control = name[len(ranker) :]
                scores[ranker + WITH_LOGPROB + control] = values + weights[ranker] * problem.mean_logprob
        return replace(problem, scores=scores)

    return replace(pool, problems=tuple(combined(problem) for problem in pool.problems))


def with_agreement(pool: Pool) -> Pool:
    """The pool with the ranker `agreement`, and `R+agreement` for every reranker R; unchanged where the sizes of groups are unknown.

    The scores of `agreement` in `pool` are the sizes of the candidates' groups. In the result, the candidates of equally large
    groups are ordered by mean log-probability, and by R's score.
    """
    if AGREEMENT not in pool.rankers:
        return pool
    rerankers = [
        name for name in pool.rankers if "+" not in name and SHUFFLED not in name and name != AGREEMENT
    ]

    def combined(problem: PoolProblem) -> PoolProblem:
        sizes = problem.scores[AGREEMENT]

        def within(values: Floats) -> Floats:
            """Sizes, plus each candidate's place among all, from 0 to below 1; ties have one place."""
            return sizes + np.searchsorted(np.sort(values), values) / len(values)

        more = {name + WITH_AGREEMENT: within(problem.scores[name]) for name in rerankers}
        return replace(problem, scores={**problem.scores, AGREEMENT: within(problem.mean_logprob), **more})

    return replace(pool, problems=tuple(map(combined, pool.problems)))


def join_runs(pools: Sequence[Pool]) -> Pool:
    """Join the pools of one name from several runs (seeds), so that an interval covers all runs.

    The run's number is put in front of problem ids. Tasks keep their names: a task that several runs share stays one unit
    of the bootstrap.
    """
    problems = (replace(p, id=f"{run}/{p.id}") for run, pool in enumerate(pools) for p in pool.problems)
    return Pool(pools[0].name, tuple(problems), sum(pool.unjudged for pool in pools))
