"""Shares of problems that each ranking rule solves, when it picks one of n candidates, with confidence intervals.

Intervals are 95 % percentile bootstrap intervals. The bootstrap resamples *tasks*: the problems of one task in several
languages are not independent, so they are drawn together. All statistics of one set of problems use the same resamples, so
that differences between them are paired.

Not covered: the variance between training seeds (see `pools.join_runs`), and the variance of sampling candidates.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import NotRequired, TypedDict, cast

import numpy as np

from selftrain.errors import UsageError
from selftrain.evaluation.concordance import own_pairs_won, pairs_won
from selftrain.evaluation.pools import (
    AGREEMENT,
    SHUFFLED,
    WITH_LOGPROB,
    Floats,
    Pool,
    PoolProblem,
    with_logprob,
)
from selftrain.units import doublings

RESAMPLES = 2000
"""Default number of bootstrap resamples."""
FEWEST_TASKS = 6
"""With fewer test tasks no difference is significant: chance alone lets all of five go one way in 6 % of the cases (sign test). A
bootstrap of so few does not show it: where all agree, its interval has no width."""
LOGPROB_WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
"""Weights that `choose_logprob_weight` tries, in units of (spread of scores) / (spread of log-probabilities)."""


class Estimate(TypedDict):
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float


class RankerEstimate(Estimate):
    """Share of problems that a ranker's picks solve, and the quality of its scores.

    gap_recovered   (ranker - random) / (oracle - random), from the means; None where oracle = random
    auc             P(a passing candidate scores above a failing one), over all candidates of all problems; ties count half;
                    None where all candidates pass or all fail
    pair_accuracy   the same probability for two candidates of one problem, averaged over the problems with both passing and
                    failing candidates; None where there is no such problem
    best_of         k -> share of problems solved by the pick from k of the candidates (see `best_of`); empty for `agreement`
                    and `R+agreement`
    """

    gap_recovered: Estimate | None
    auc: Estimate | None
    pair_accuracy: Estimate | None
    best_of: dict[str, Estimate]


class Metrics(TypedDict):
    """Shares of a pool's problems, 0 to 1, that each ranking rule solves.

    samples   candidates per problem; the smallest number if the sandbox could not judge some of them
    random    mean pass@1 of the pool
    oracle    mean pass@n: share of problems with at least one passing candidate
    examples  None where no prompt has examples
    best_of   rule -> k -> share of problems solved by the pick from k of the candidates; `oracle` is pass@k
    rankers   ranker -> its share; controls are left out

    Programs that were not sampled here may lack the greedy completion or log-probabilities; then those entries are not there.
    """

    problems: int
    samples: int
    greedy: NotRequired[Estimate]
    random: Estimate
    logprob: NotRequired[Estimate]
    logprob_sum: NotRequired[Estimate]
    majority: Estimate
    examples: Estimate | None
    oracle: Estimate
    best_of: dict[str, dict[str, Estimate]]
    rankers: dict[str, RankerEstimate]


class PoolMetrics(TypedDict):
    """`Metrics` over all problems of a pool, and over those of each language."""

    overall: Metrics
    languages: dict[str, Metrics]


def pass_at_k(n: int, c: int, k: int) -> float:
    """Unbiased estimate of P(any of k candidates passes), where c of n candidates pass (Chen et al. 2021, eq. 1).

    Raises `UsageError` unless 1 <= k <= n, `ValueError` unless 0 <= c <= n.
    """
    if not 0 <= c <= n:
        raise ValueError(f"pass@k: expected 0 <= c <= n, got c={c}, n={n}")
    if not 1 <= k <= n:
        raise UsageError(f"pass@{k} needs k >= 1 and k candidates a problem, got {n}: sample more")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def outcomes(pool: Pool) -> dict[str, Floats]:
    """Ranking rule -> [problems] probability, 0 to 1, that it picks a passing candidate; NaN where unknown.

    The rules are greedy, random, oracle and those of `PoolProblem.picks`; `examples` only if some prompt has examples.
    """
    sizes = [(len(p.passed), int(p.passed.sum())) for p in pool.problems]
    picked = [*ordered_ways(pool), "majority"]
    greedy = [math.nan if p.greedy_passed is None else p.greedy_passed for p in pool.problems]
    return {
        "greedy": np.array(greedy, float),
        "random": np.array([pass_at_k(n, c, 1) for n, c in sizes]),
        "oracle": np.array([pass_at_k(n, c, n) for n, c in sizes]),
        **{way: np.array([p.passed[p.picks[way]] for p in pool.problems], float) for way in picked},
    }


def ordered_ways(pool: Pool) -> list[str]:
    """The rules of `PoolProblem.orders` that make sense for a pool: `examples` only if some prompt has examples."""
    shown = any(problem.examples_passed is not None for problem in pool.problems)
    return [way for way in pool.problems[0].orders if way != "examples" or shown]


def best_of(pool: Pool, way: str, k: int) -> Floats:
    """[problems] chance that `way` picks a passing candidate from k of a problem's candidates.

    This is the exact mean over all subsets of k candidates: of n candidates, the one that the rule puts in place j (from 0) is
    picked from C(n - 1 - j, k - 1) of the C(n, k) subsets. `oracle`: pass@k. The rules `majority`, `agreement` and
    `R+agreement` have no such order, because the groups of k candidates are not those of all n.
    """
    if way == "oracle":
        return np.array([pass_at_k(len(p.passed), int(p.passed.sum()), k) for p in pool.problems])

    def chance(problem: PoolProblem) -> float:
        return float(problem.passed[problem.orders[way]] @ _chances_of_places(len(problem.passed), k))

    return np.array([chance(problem) for problem in pool.problems])


@cache
def _chances_of_places(n: int, k: int) -> Floats:
    """[n] the chance that the candidate in each place is the first of k of n."""
    return np.array([math.comb(n - 1 - j, k - 1) / math.comb(n, k) for j in range(n)])


def bootstrap_weights(
    tasks: Sequence[str], resamples: int = RESAMPLES, seed: int | np.random.Generator = 0
) -> Floats:
    """[1 + resamples, problems] how often each problem is drawn; row 0 is the original sample, all ones.

    `tasks` [problems]: the task of each problem; problems of one task are drawn together. Deterministic for the same set of
    tasks and seed.
    """
    names, index = np.unique(np.asarray(tasks), return_inverse=True)
    chances = np.full(len(names), 1 / len(names))
    draws = np.random.default_rng(seed).multinomial(len(names), chances, size=resamples)
    return np.vstack([np.ones(len(names)), draws])[:, index]


def pool_weights(pool: Pool, resamples: int = RESAMPLES, seed: int = 0) -> Floats:
    """`bootstrap_weights` of a pool's problems: [1 + resamples, problems]."""
    return bootstrap_weights([problem.task for problem in pool.problems], resamples, seed)


def few_tasks(tasks: int) -> str:
    """That the test split has too few tasks, as a sentence for users without its full stop; empty where it has enough."""
    if tasks >= FEWEST_TASKS:
        return ""
    return f"The test split has {tasks} of the at least {FEWEST_TASKS} tasks with which a difference can be significant"


def mean_estimate(values: Floats, weights: Floats) -> Estimate | None:
    """Mean of `values` [problems] without NaN, with its interval. `weights`: `bootstrap_weights`. None if all are NaN."""
    return _estimate(_means(values, weights))


def pool_metrics(
    pool: Pool, resamples: int = RESAMPLES, seed: int = 0, unknown: Collection[str] = ()
) -> PoolMetrics:
    """`Metrics` over all problems and by language, without controls (`~shuffled`).

    unknown  those of greedy, logprob and logprob_sum for which the pool has no values of its own: they are left out
    """
    languages = sorted({problem.language for problem in pool.problems})
    overall = _metrics(pool, resamples, seed, unknown)
    if len(languages) == 1:
        return {"overall": overall, "languages": {languages[0]: overall}}
    parts = {name: _metrics(pool.only(name), resamples, seed, unknown) for name in languages}
    return {"overall": overall, "languages": parts}


def choose_logprob_weight(validation: Pool, ranker: str) -> float:
    """The weight w for which score + w x mean log-probability solves most of `validation`; ties go to the smallest w.

    Tries `LOGPROB_WEIGHTS`. The spread of a number is its standard deviation among the candidates of one problem, averaged
    over problems. Differences between problems do not count, since a pick is among the candidates of one problem.
    """
    score_spread = float(np.mean([p.scores[ranker].std() for p in validation.problems]))
    logprob_spread = float(np.mean([p.mean_logprob.std() for p in validation.problems]))
    if logprob_spread == 0.0:
        return 0.0
    weights = [multiple * score_spread / logprob_spread for multiple in LOGPROB_WEIGHTS]

    def accuracy(weight: float) -> float:
        return float(outcomes(with_logprob(validation, {ranker: weight}))[ranker + WITH_LOGPROB].mean())

    return max(weights, key=accuracy)


def choose_ranker(validation: Pool, rankers: Sequence[str]) -> str:
    """The ranker that solves most problems of `validation`; ties go to the one that is earlier in `rankers`."""
    table = outcomes(validation)
    return max(rankers, key=lambda ranker: float(table[ranker].mean()))


def _metrics(pool: Pool, resamples: int, seed: int, unknown: Collection[str]) -> Metrics:
    weights = pool_weights(pool, resamples, seed)
    table = outcomes(pool)
    rankers = [ranker for ranker in pool.rankers if not ranker.endswith(SHUFFLED)]
    samples = min(len(problem.passed) for problem in pool.problems)

    def mean(way: str) -> Estimate:
        estimate = mean_estimate(table[way], weights)
        if estimate is None:
            raise UsageError(f"pool {pool.name}: no {way} candidate was judged, expected one a problem")
        return estimate

    def curve(way: str) -> dict[str, Estimate]:
        sizes = [] if way.endswith(AGREEMENT) else doublings(samples)
        return {
            str(k): estimate for k in sizes if (estimate := mean_estimate(best_of(pool, way, k), weights))
        }

    baselines = [
        way for way in ("greedy", "random", "logprob", "logprob_sum", "majority") if way not in unknown
    ]
    ordered = [way for way in [*ordered_ways(pool), "oracle"] if way not in pool.rankers]
    found = {
        "problems": len(pool.problems),
        "samples": samples,
        **{way: mean(way) for way in baselines},
        "examples": mean("examples") if "examples" in table else None,
        "oracle": mean("oracle"),
        "best_of": {way: curve(way) for way in ordered if way not in unknown},
        "rankers": {
            ranker: _ranker(pool, ranker, mean(ranker), table, weights, curve(ranker)) for ranker in rankers
        },
    }
    return cast(Metrics, found)


def _ranker(
    pool: Pool,
    ranker: str,
    solved: Estimate,
    table: Mapping[str, Floats],
    weights: Floats,
    curve: dict[str, Estimate],
) -> RankerEstimate:
    scores, passed = [p.scores[ranker] for p in pool.problems], [p.passed for p in pool.problems]
    passing = np.array([part.sum() for part in passed], float)
    failing = np.array([len(part) for part in passed], float) - passing
    own = np.array([own_pairs_won(*each) for each in zip(scores, passed, strict=True)])
    gain = _means(table[ranker] - table["random"], weights)
    gap = _means(table["oracle"] - table["random"], weights)
    won = pairs_won(scores, passed, weights)
    return {
        **solved,
        "gap_recovered": _estimate(_ratio(gain, gap)),
        "auc": _estimate(_ratio(won, (weights @ passing) * (weights @ failing))),
        "pair_accuracy": _estimate(_means(_ratio(own, passing * failing), weights)),
        "best_of": curve,
    }


def _means(values: Floats, weights: Floats) -> Floats:
    """[1 + resamples] weighted means of the values that are not NaN; NaN where a resample has no such value."""
    known = np.isfinite(values)
    if known.all() and weights.flags.f_contiguous:  # equal to the copy below, in the same order in memory
        return _ratio(weights @ values, weights.sum(axis=1))
    return _ratio(weights[:, known] @ values[known], weights[:, known].sum(axis=1))


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Elementwise quotient; NaN where the denominator is 0."""
    return numerator / np.where(denominator == 0, np.nan, denominator)


def _estimate(statistics: Floats) -> Estimate | None:
    """Estimate from [1 + resamples] statistics, the first of which is the value; None where the value is NaN."""
    if math.isnan(statistics[0]):
        return None
    low, high = np.nanpercentile(statistics[1:], [2.5, 97.5])
    return {"value": float(statistics[0]), "low": float(low), "high": float(high)}
