"""Decides what to train next, compares a challenger with the champion, and decides on promotion.

The comparison measures what users deploy: a reranker that picks from the SFT policy's candidates for the test problems, with or
without log-probability, whichever was better on the validation split. Champion and challenger pick from the same candidates, so
their difference is paired by problem. The comparison `system/r-(r-1)` is not used: there each reranker picks from the
candidates of another PPO policy, and PPO policies are not deployed; they serve to find the reranker's mistakes.

A *chain* is the sequence of rerankers rm-1, rm-2, ... that one method (problems, config, versions) trains. If the champion is of
the run's own chain, it is one of the run's earlier rerankers. A champion of another chain is evaluated in the run under the
name `champion`.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from selftrain.champion.registry import Contender, Identity, Record, Share
from selftrain.config import PromotionConfig
from selftrain.evaluation.metrics import (
    FEWEST_TASKS,
    Estimate,
    choose_ranker,
    few_tasks,
    mean_estimate,
    outcomes,
    pool_weights,
)
from selftrain.evaluation.pools import WITH_LOGPROB, load_pool, with_logprob
from selftrain.evaluation.scores import read_scores

CHAMPION = "champion"
"""Name in an evaluation of a champion of another chain."""
POOL = "sft"
"""The pool in which champion and challenger are compared."""
UNTRAINED = {"random": "a random pick", "logprob": "the pick by log-probability"}
"""The ways to pick that the first champion has to beat -> how reasons call them."""


@dataclass(frozen=True)
class Attempt:
    """The next run.

    rounds    its number of rounds
    rival     the champion to beat; None if there is no champion yet
    of_chain  whether the rival is a reranker of the run's own chain
    nothing   reason to train nothing new, else None. With a reason, the other fields are those of the last decision's run.
    """

    rounds: int
    rival: Contender | None = None
    of_chain: bool = True
    nothing: str | None = None


def next_attempt(
    records: Sequence[Record],
    identity: Identity,
    reranker: Callable[[int], str],
    rounds: int,
    settings: PromotionConfig,
) -> Attempt:
    """The next attempt after `records`.

    identity  of the next decision
    reranker  round -> the reranker (`STAGE/KEY`) that this method trains in that round
    rounds    number of rounds of the config

    The number of rounds is `rounds` without a champion, one more than that of a champion of this chain, and equal to that of a
    champion of another chain. If that round's reranker was a challenger before, even if it was rolled back later, the next
    round without such a reranker is taken.
    """
    most = settings.max_rounds or math.inf
    if not records:
        return Attempt(int(min(rounds, most)))
    champion = records[-1].champion
    of_chain = champion is not None and reranker(champion.rounds) == champion.reranker
    decided = [
        record
        for record in records
        if record.challenger and record.identity and record.identity.method == identity.method
    ]
    judged = {record.challenger.reranker for record in decided if record.challenger}
    number = int(min(champion.rounds if champion else rounds, most)) + of_chain
    while reranker(number) in judged:
        number += 1
    rejected = 0  # challengers in a row, under this identity
    for record in reversed(records):
        if record.decision != "not promoted" or record.identity != identity:
            break
        rejected += 1
    nothing = None
    if rejected >= settings.patience:
        nothing = f"challengers in a row that were not promoted: {rejected} (promotion.patience {settings.patience}), and nothing has changed since"
    elif number > most:
        nothing = f"promotion.max_rounds {settings.max_rounds} is reached"
    if nothing is None:
        return _attempt(number, champion, reranker)
    if not decided:
        return Attempt(champion.rounds if champion else number, nothing=nothing)
    last = decided[-1]
    assert last.challenger is not None
    return _attempt(last.challenger.rounds, last.rival, reranker, nothing)


def _attempt(
    rounds: int, rival: Contender | None, reranker: Callable[[int], str], nothing: str | None = None
) -> Attempt:
    of_chain = rival is None or rival.reranker in {reranker(number) for number in range(1, rounds + 1)}
    return Attempt(rounds, rival, of_chain, nothing)


@dataclass(frozen=True)
class Measured:
    """One reranker in an evaluation.

    ranker          the rule that was better on validation: the score alone (`rm-2`), or `rm-2+logprob`
    logprob_weight  weight of the log-probability; 0 for the score alone
    solved          share of test problems solved
    """

    ranker: str
    logprob_weight: float
    solved: Share


@dataclass(frozen=True)
class Comparison:
    """Challenger and rival on the same problems and candidates. Without a rival, `rival` and `difference` are None.

    tasks      number of tasks of the test problems
    untrained  what the challenger solves more than each way to pick without a reranker
    """

    problems: int
    tasks: int
    random: Share
    oracle: Share
    challenger: Measured
    rival: Measured | None
    difference: Share | None
    untrained: dict[str, Share]


def compare(
    inputs: Mapping[str, Path], challenger: str, rival: str | None, resamples: int, seed: int
) -> Comparison:
    """Compare two rerankers on the test problems.

    inputs             role (`problems`, `sft.candidates`, `sft.executions`, `evaluation`) -> artifact folder
    challenger, rival  names in the evaluation; rival None: only the challenger is measured
    resamples, seed    of the bootstrap
    """
    result = json.loads((inputs["evaluation"] / "evaluation.json").read_text())
    names = [challenger] if rival is None else [challenger, rival]
    scores = read_scores(inputs["evaluation"], POOL, names)
    weights = {name: result["logprob_weights"][name] for name in names}

    def pool(split: str) -> Any:
        loaded = load_pool(inputs, POOL, split, {name: scores[name] for name in names})
        return with_logprob(loaded, weights)

    validation, test = pool("validation"), pool("test")
    table, resampled = outcomes(test), pool_weights(test, resamples, seed)

    def share(values: Any) -> Share:
        estimate: Estimate | None = mean_estimate(values, resampled)
        assert estimate is not None, "every problem of a pool has an outcome"
        return Share(**estimate)

    chosen = {name: choose_ranker(validation, [name, name + WITH_LOGPROB]) for name in names}
    measured = {
        name: Measured(
            chosen[name], weights[name] if chosen[name] != name else 0.0, share(table[chosen[name]])
        )
        for name in names
    }
    return Comparison(
        problems=len(test.problems),
        tasks=test.tasks,
        random=share(table["random"]),
        oracle=share(table["oracle"]),
        challenger=measured[challenger],
        rival=None if rival is None else measured[rival],
        difference=None if rival is None else share(table[chosen[challenger]] - table[chosen[rival]]),
        untrained={title: share(table[chosen[challenger]] - table[way]) for way, title in UNTRAINED.items()},
    )


def verdict(
    difference: Share | None,
    tolerance: float,
    untrained: Mapping[str, Share] = MappingProxyType({}),
    tasks: int = FEWEST_TASKS,
) -> tuple[bool, str]:
    """The rule of promotion: whether the challenger becomes champion, and the reason as text.

    A challenger has to beat the champion by more than `tolerance`. Without one (`difference` None), it has to beat each way to pick
    without a reranker: see `Comparison.untrained`. With fewer than FEWEST_TASKS test tasks there is no promotion.
    """
    if few := few_tasks(tasks):
        return False, f"{few[0].lower()}{few[1:]}; give it more problems"
    if difference is None:
        said = " and ".join(f"{_said(share)} more than {title}" for title, share in untrained.items())
        if all(share.low > 0 for share in untrained.values()):
            return True, f"there was no champion yet{', and it solves ' + said if said else ''}"
        return False, f"there is no champion yet: solves {said}; not every interval lies above 0"
    said = f"solves {_said(difference)} of the problems more than the champion"
    if difference.low > tolerance:
        return True, f"{said}: the interval lies above the tolerance {tolerance:g}"
    return False, f"{said}: the interval does not lie above the tolerance {tolerance:g}"


def _said(share: Share) -> str:
    return f"{share.value:+.3f} [{share.low:+.3f}, {share.high:+.3f}]"
