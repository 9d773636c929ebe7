"""What each ranker of each variant of a study solves, and paired differences between variants and rankers, over all seeds.

Intervals are 95 % percentile bootstrap intervals. Tasks are drawn with replacement within each seed (seeds are strata), with the
problems of a task in all languages and variants together. A problem that several seeds share is one unit: it is drawn once for
all of them, in the stratum of the first. All rows use the same resamples, so all differences are paired.

Not covered: the variance between training runs, of which the values by seed give an impression, and the variance of sampling.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypedDict, final

import numpy as np

from selftrain.evaluation.metrics import RESAMPLES, Estimate, bootstrap_weights, mean_estimate, outcomes
from selftrain.evaluation.pools import SHUFFLED, WITH_AGREEMENT, WITH_LOGPROB, Floats, Pool, PoolProblem

RERANKER = "reranker"
"""Name of the last round's reranker in a study, whatever the number of rounds."""
CHOSEN = "chosen"
"""Name of the ranker that a run chose on its validation split."""
BASELINES = ("random", "logprob", "majority")
"""Ways of picking that a variant's own rankers are compared with."""

Variant = Mapping[int, Mapping[str, Pool]]
"""Seed -> name of a pool -> the pool."""

Side = tuple[str, str]
"""A variant and a ranker."""


class Row(Estimate):
    """Share of problems that `ranker` solves in `pool` of `variant`; with `minus`, that share less the one of `minus`.

    minus     (variant, ranker) whose outcome on the same problem is subtracted; None: the share itself
    problems  number of problems over all seeds
    by_seed   seed -> the same value for that seed alone
    """

    variant: str
    pool: str
    ranker: str
    minus: Side | None
    problems: int
    by_seed: dict[str, float]


@final
class Table(TypedDict):
    """The table of a study. `split`: the split of all problems in it; `seeds`: variant -> its seeds that are in the table."""

    split: str
    baseline: str
    seeds: dict[str, list[int]]
    resamples: int
    rows: list[Row]


class Resamples:
    """How often each task is drawn in each resample: the bootstrap that the module's docstring describes."""

    def __init__(self, variants: Mapping[str, Variant], resamples: int, seed: int) -> None:
        self._first: dict[tuple[str, str], int] = {}
        """(problem id, prompt) -> the first seed that has the problem."""
        pools = [
            (at, pool) for variant in variants.values() for at, by in variant.items() for pool in by.values()
        ]
        for at, pool in sorted(pools, key=lambda item: item[0]):
            for problem in pool.problems:
                self._first.setdefault((problem.id, problem.prompt), at)
        strata: dict[int, set[str]] = {}
        for _, pool in pools:
            for problem in pool.problems:
                strata.setdefault(self._unit(problem)[0], set()).add(problem.task)
        rng = np.random.default_rng(seed)
        self._drawn: dict[tuple[int, str], Floats] = {}
        for at in sorted(strata):
            tasks = sorted(strata[at])
            columns = bootstrap_weights(tasks, resamples, rng).T
            self._drawn |= {(at, task): column for task, column in zip(tasks, columns, strict=True)}

    def _unit(self, problem: PoolProblem) -> tuple[int, str]:
        return self._first[problem.id, problem.prompt], problem.task

    def weights(self, problems: Sequence[PoolProblem]) -> Floats:
        """[1 + resamples, problems] how often each problem is drawn; row 0 is all ones."""
        return np.stack([self._drawn[self._unit(problem)] for problem in problems], axis=1)


def study_table(
    variants: Mapping[str, Variant],
    baseline: str,
    split: str,
    pools: Sequence[str] = ("sft",),
    resamples: int = RESAMPLES,
    seed: int = 0,
    differences: Sequence[tuple[Side, Side]] = (),
) -> Table:
    """The table of `variants`. Differences between variants are over the problems and seeds that both have.

    differences  further differences, the first side less the second, where the table has both
    """
    drawn = Resamples(variants, resamples, seed)
    rows: list[Row] = []
    for pool in pools:
        for name, variant in variants.items():
            rows += _rows(name, variant, pool, baseline, variants[baseline], drawn)
        for first, second in differences:
            rows += _difference(first, second, pool, variants, drawn)
    return {
        "split": split,
        "baseline": baseline,
        "seeds": {name: sorted(variant) for name, variant in variants.items()},
        "resamples": resamples,
        "rows": rows,
    }


def _rows(
    name: str, variant: Variant, pool: str, baseline: str, rival: Variant, drawn: Resamples
) -> Iterator[Row]:
    """A variant's rows for one pool: what rankers solve, their gains over its own baselines, and over the same ranker of `rival`."""
    own = {seed: outcomes(by[pool]) for seed, by in variant.items() if pool in by}
    if not own:
        return
    pools = {seed: variant[seed][pool] for seed in own}
    rankers = [way for way in next(iter(own.values())) if all(way in table for table in own.values())]
    row = partial(_row, drawn=drawn, variant=name, pool=pool)
    for ranker in rankers:
        yield from row(ranker, None, {seed: table[ranker] for seed, table in own.items()}, pools)
    for ranker in rankers:
        for rule in _rivals(ranker):
            gains = {seed: table[ranker] - table[rule] for seed, table in own.items()}
            yield from row(ranker, (name, rule), gains, pools)
    if name == baseline:
        return
    shared = _both(variant, rival, pool)
    both = {seed: (outcomes(a), outcomes(b)) for seed, (a, b) in shared.items()}
    for ranker in rankers if both else ():
        if all(ranker in table for _, table in both.values()):
            gains = {seed: a[ranker] - b[ranker] for seed, (a, b) in both.items()}
            yield from row(ranker, (baseline, ranker), gains, {seed: a for seed, (a, _) in shared.items()})


def _row(
    ranker: str,
    minus: Side | None,
    values: Mapping[int, Floats],
    pools: Mapping[int, Pool],
    *,
    drawn: Resamples,
    variant: str,
    pool: str,
) -> Iterator[Row]:
    """The row of `values` (seed -> [problems], of those in `pools`); none if all are unknown."""
    weights = drawn.weights([problem for seed in values for problem in pools[seed].problems])
    estimate = mean_estimate(np.concatenate([*values.values()]), weights)
    if estimate is not None:
        by_seed = {
            str(seed): float(np.nanmean(each)) for seed, each in values.items() if np.isfinite(each).any()
        }
        count = sum(map(len, values.values()))
        yield {"variant": variant, "pool": pool, "ranker": ranker, "minus": minus, "problems": count,
               "by_seed": by_seed, **estimate}  # fmt: skip


def _difference(
    first: Side, second: Side, pool: str, variants: Mapping[str, Variant], drawn: Resamples
) -> Iterator[Row]:
    """The row of what the ranker of `first` solves less what that of `second` does; none where one is missing."""
    (one, ranker), (other, rule) = first, second
    shared = _both(variants.get(one, {}), variants.get(other, {}), pool)
    both = {seed: (outcomes(a), outcomes(b)) for seed, (a, b) in shared.items()}
    gains = {seed: a[ranker] - b[rule] for seed, (a, b) in both.items() if ranker in a and rule in b}
    if gains:
        pools = {seed: a for seed, (a, _) in shared.items()}
        yield from _row(ranker, (other, rule), gains, pools, drawn=drawn, variant=one, pool=pool)


def _both(variant: Variant, rival: Variant, pool: str) -> dict[int, tuple[Pool, Pool]]:
    """Seed -> the pools of both variants, restricted to the problems that both have."""
    return {
        seed: pair
        for seed, by in variant.items()
        if pool in by and pool in rival.get(seed, {}) and (pair := _shared(by[pool], rival[seed][pool]))
    }


def _rivals(ranker: str) -> tuple[str, ...]:
    """The rules of the same variant that a ranker is compared with; a control only with a random pick."""
    if ranker in ("random", "greedy", "oracle", *BASELINES):
        return ()
    return BASELINES[:1] if ranker.endswith(SHUFFLED) else BASELINES


def _shared(a: Pool, b: Pool) -> tuple[Pool, Pool] | None:
    """Both pools, restricted to the problems that both have, in the order of `a`; None if there is none."""
    of_b = {(problem.id, problem.prompt): problem for problem in b.problems}
    pairs = [(p, of_b[p.id, p.prompt]) for p in a.problems if (p.id, p.prompt) in of_b]
    if not pairs:
        return None
    ours, theirs = zip(*pairs, strict=True)
    return replace(a, problems=ours), replace(b, problems=theirs)


def with_roles(pool: Pool, chosen: str) -> Pool:
    """The pool with the scores of the ranker `chosen` also under the name `chosen`, and those of the last round's reranker under
    `reranker` and `reranker+logprob`; each with its control, if the pool has one."""
    numbers = [int(match[1]) for name in pool.rankers if (match := re.fullmatch(r"rm-(\d+)", name))]
    names = {chosen: CHOSEN, chosen + SHUFFLED: CHOSEN + SHUFFLED}
    pool = renamed(pool, names)
    if not numbers:
        return pool
    last = f"rm-{max(numbers)}"
    ends = ("", WITH_LOGPROB, WITH_AGREEMENT, SHUFFLED, WITH_LOGPROB + SHUFFLED)
    return renamed(pool, {last + end: RERANKER + end for end in ends})


def renamed(pool: Pool, names: Mapping[str, str]) -> Pool:
    """The pool with the scores of some rankers also under further names. `names`: ranker -> its further name."""

    def named(problem: PoolProblem) -> PoolProblem:
        scores = problem.scores
        more = {new: scores[old] for old, new in names.items() if old in scores}
        return replace(problem, scores={**scores, **more})

    return replace(pool, problems=tuple(map(named, pool.problems)))
