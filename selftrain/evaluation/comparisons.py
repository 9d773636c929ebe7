"""Paired differences between two ranking rules, two rounds or two generators on the same problems.

The value of a comparison `A-B` is the mean over problems of A's outcome minus B's outcome. Names of comparisons:

    POOL/RANKER-RIVAL       share of problems solved. RIVAL: random, logprob, majority, or the same ranker of the round
                            before
    POOL/RANKER~shuffled-random
                            as above, for the control: scores of candidates with the prompt of another problem
    system/r-(r-1)          share of problems solved when rm-r picks from pool ppo-r, minus the share when rm-(r-1) picks
                            from ppo-(r-1). Round 0 has no reranker: it is a random pick from pool sft
    ppo-r/top_pick_fails/rm-(r+1)-rm-r
                            share of problems whose top pick fails, after minus before retraining the reranker
    score/ppo-r-sft         mean score of pool ppo-r minus that of pool sft, in units of rm-r, against which ppo-r was
                            trained
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NotRequired, TypedDict, final

import numpy as np

from selftrain.evaluation.metrics import (
    FEWEST_TASKS,
    RESAMPLES,
    Estimate,
    PoolMetrics,
    few_tasks,
    mean_estimate,
    outcomes,
    pool_metrics,
    pool_weights,
)
from selftrain.evaluation.pools import AGREEMENT, SHUFFLED, Floats, Pool


class Comparison(Estimate):
    """A paired difference; the module's docstring explains the names."""

    name: str


class Headline(TypedDict):
    """What a ranker gains over the best way of picking that needs no training, on the same problems.

    solved      share of problems that the ranker solves
    rival       the way of `untrained` that solves most
    rival_solved, difference   the rival's share, and the ranker's minus the rival's
    tasks       of the problems; older reports lack it
    """

    solved: Estimate
    rival: str
    rival_solved: Estimate
    difference: Estimate
    tasks: NotRequired[int]


@final
class Evaluation(TypedDict):
    """The part of a report that is computed from pools."""

    pools: dict[str, PoolMetrics]
    comparisons: list[Comparison]


def evaluate_pools(pools: Sequence[Pool], resamples: int = RESAMPLES, seed: int = 0) -> Evaluation:
    """Metrics of every pool, and all comparisons that the pools allow. All pools are of the same test problems."""
    return {
        "pools": {pool.name: pool_metrics(pool, resamples, seed) for pool in pools},
        "comparisons": compare_pools(pools, resamples, seed),
    }


UNTRAINED = ("random", "greedy", "logprob", "logprob_sum", "majority", "examples", AGREEMENT)
"""The ways of picking that need no training. Ties for the best go to the first."""


def untrained(metrics: Mapping[str, Any]) -> dict[str, Estimate]:
    """The ways of UNTRAINED in a pool's `Metrics` -> their shares of problems solved."""
    found = {**metrics, **{way: metrics["rankers"][way] for way in (AGREEMENT,) if way in metrics["rankers"]}}
    return {way: found[way] for way in UNTRAINED if found.get(way)}


def best_untrained(metrics: Mapping[str, Any]) -> str:
    """The way of UNTRAINED that solves most problems."""
    found = untrained(metrics)
    return max(found, key=lambda way: found[way]["value"])


def headline(pool: Pool, ranker: str, evaluation: Evaluation) -> Headline:
    """What `ranker` gains on `pool`; the difference is that of the evaluation's comparisons if it is among them."""
    metrics = evaluation["pools"][pool.name]["overall"]
    rival = best_untrained(metrics)
    known = {row["name"]: row for row in evaluation["comparisons"]}.get(f"{pool.name}/{ranker}-{rival}")
    table = outcomes(pool)
    found = known or _paired("", table[ranker], table[rival], pool_weights(pool))
    return {
        "solved": only(metrics["rankers"][ranker]),
        "rival": rival,
        "rival_solved": only(untrained(metrics)[rival]),
        "difference": only(found),
        "tasks": pool.tasks,
    }


def headline_text(ranker: str, found: Mapping[str, Any]) -> str:
    """A headline as a sentence without its beginning, and a second where the test split has too few tasks."""
    gain, few = found["difference"], few_tasks(found.get("tasks", FEWEST_TASKS))
    return (
        f"{ranker} picks a right program on {100 * found['solved']['value']:.1f} %, the best way without training, "
        f"{found['rival']}, on {100 * found['rival_solved']['value']:.1f} %: {100 * gain['value']:+.1f} points "
        f"[{100 * gain['low']:+.1f}, {100 * gain['high']:+.1f}]" + (f". {few}" if few else "")
    )


def only(estimate: Estimate) -> Estimate:
    """The value and its interval alone."""
    return {"value": estimate["value"], "low": estimate["low"], "high": estimate["high"]}


def compare_pools(pools: Sequence[Pool], resamples: int = RESAMPLES, seed: int = 0) -> list[Comparison]:
    """All comparisons that `pools` allow. Two pools are compared over the problems that both contain."""
    by_name = {pool.name: pool for pool in pools}
    found = [row for pool in pools for row in _within(pool, resamples, seed)]
    for name, pool in by_name.items():
        if match := re.fullmatch(r"ppo-(\d+)", name):
            found += _between(int(match[1]), pool, by_name, resamples, seed)
    return found


def _within(pool: Pool, resamples: int, seed: int) -> list[Comparison]:
    """Comparisons of each ranker with the baselines and with the same ranker of the round before."""
    table = outcomes(pool)
    weights = pool_weights(pool, resamples, seed)
    rows = []
    for ranker in pool.rankers:
        rivals = ["random"]
        if not ranker.endswith(SHUFFLED):
            # Of `rm-2+logprob` the ranker of the round before is `rm-1+logprob`.
            before = re.sub(r"(?<=^rm-)\d+", lambda number: str(int(number[0]) - 1), ranker)
            rivals += ["logprob", "majority", before]
        rows += [
            _paired(f"{pool.name}/{ranker}-{rival}", table[ranker], table[rival], weights)
            for rival in rivals
            if rival in table and rival != ranker
        ]
    return rows


def _between(r: int, pool: Pool, by_name: dict[str, Pool], resamples: int, seed: int) -> list[Comparison]:
    """Comparisons that show the effects of PPO in round r, and of retraining the reranker afterwards."""
    rows = []
    judge, successor = f"rm-{r}", f"rm-{r + 1}"
    before, how_before = (f"ppo-{r - 1}", f"rm-{r - 1}") if r > 1 else ("sft", "random")
    if before in by_name and judge in pool.rankers:
        now, then = _shared(pool, by_name[before])
        if how_before in (table := outcomes(then)):
            weights = pool_weights(now, resamples, seed)
            rows.append(_paired(f"system/{r}-{r - 1}", outcomes(now)[judge], table[how_before], weights))
    if {judge, successor} <= set(pool.rankers):
        table = outcomes(pool)
        weights = pool_weights(pool, resamples, seed)
        name = f"{pool.name}/top_pick_fails/{successor}-{judge}"
        rows.append(_paired(name, 1 - table[successor], 1 - table[judge], weights))
    if "sft" in by_name and judge in pool.rankers and judge in by_name["sft"].rankers:
        now, then = _shared(pool, by_name["sft"])
        weights = pool_weights(now, resamples, seed)
        name = f"score/{pool.name}-sft"
        rows.append(_paired(name, _mean_scores(now, judge), _mean_scores(then, judge), weights))
    return rows


def _paired(name: str, a: Floats, b: Floats, weights: Floats) -> Comparison:
    estimate = mean_estimate(a - b, weights)
    if estimate is None:
        raise ValueError(f"{name}: no problem has both outcomes, expected at least one")
    return {"name": name, **estimate}


def _shared(a: Pool, b: Pool) -> tuple[Pool, Pool]:
    """Both pools, restricted to the problems that both contain, in the order of `a`."""
    of_b = {problem.id: problem for problem in b.problems}
    shared = [problem for problem in a.problems if problem.id in of_b]
    return replace(a, problems=tuple(shared)), replace(b, problems=tuple(of_b[p.id] for p in shared))


def _mean_scores(pool: Pool, ranker: str) -> Floats:
    """[problems] mean score of each problem's candidates."""
    return np.array([problem.scores[ranker].mean() for problem in pool.problems])
