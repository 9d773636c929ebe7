"""Champion and challenger: what to train next, how the two are compared, and when the challenger takes over.

What is compared is the product: a reranker, in the way that the validation split chose for it (with or without
log-probability), picking from the SFT policy's candidates for the test problems. Champion and challenger pick from the same
candidates, so that the difference is paired: the sandbox's verdict on one pick minus that on the other, problem by problem.
It is not `system/r-(r-1)`, where each picks from another policy's candidates: nobody serves the PPO policies, they are there
to find what the reranker gets wrong.

Where the champion is of the run's own chain, it is that chain's earlier rm-r. Where problems, config or code have changed, the
new chain has other rerankers, and the champion is evaluated beside them, under the name `champion`.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selftrain.champion.registry import Contender, Identity, Record, Share
from selftrain.config import PromotionConfig
from selftrain.evaluation.metrics import Estimate, choose_ranker, mean_estimate, outcomes, pool_weights
from selftrain.evaluation.pools import WITH_LOGPROB, load_pool, with_logprob

CHAMPION = "champion"
"""Name of a reranker of another run among those of an evaluation."""
POOL = "sft"


@dataclass(frozen=True)
class Attempt:
    """The run to make next.

    rounds   of its method
    rival    the champion to beat; None where there is none yet
    of_chain whether the rival is one of the run's own rerankers
    nothing  why there is nothing to do: the run is that of the last decision then; None where there is
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
    """What comes after `records`, for a method in which round n would make `reranker(n)`.

    Nobody is champion: `rounds` rounds. The champion is of this chain: one round more than it has. It is not: as many as it
    has. Challengers that this method was already judged by, not promoted or rolled back, are passed over for the next round's.
    """
    most = settings.max_rounds or math.inf
    if not records:
        return Attempt(int(min(rounds, most)))
    champion = records[-1].champion
    of_chain = reranker(champion.rounds) == champion.reranker
    decided = [
        record
        for record in records
        if record.challenger and record.identity and record.identity.method == identity.method
    ]
    judged = {record.challenger.reranker for record in decided if record.challenger}
    number = champion.rounds + 1 if of_chain else int(min(champion.rounds, most))
    while reranker(number) in judged:
        number += 1
    in_vain = 0
    for record in reversed(records):
        if record.decision != "not promoted" or record.identity != identity:
            break
        in_vain += 1
    nothing = None
    if in_vain >= settings.patience:
        nothing = f"challengers in a row that were not promoted: {in_vain} (promotion.patience {settings.patience}), and nothing has changed since"
    elif number > most:
        nothing = f"promotion.max_rounds {settings.max_rounds} is reached"
    if nothing is None:
        return _attempt(number, champion, reranker)
    if not decided:
        return Attempt(champion.rounds, nothing=nothing)
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
    """One reranker in an evaluation: the way of using it that validation chose, its log-probability weight, its share of
    test problems solved."""

    ranker: str
    logprob_weight: float
    solved: Share


@dataclass(frozen=True)
class Comparison:
    """Challenger and rival on the same problems and candidates; the rival's parts are None where there is none."""

    problems: int
    random: Share
    oracle: Share
    challenger: Measured
    rival: Measured | None
    difference: Share | None


def compare(
    inputs: Mapping[str, Path], challenger: str, rival: str | None, resamples: int, seed: int
) -> Comparison:
    """Measure two rerankers by their names in an evaluation.

    `inputs`: folders of the artifacts `problems`, `sft.candidates`, `sft.executions` and `evaluation`.
    """
    result = json.loads((inputs["evaluation"] / "evaluation.json").read_text())
    scores = json.loads((inputs["evaluation"] / "scores.json").read_text())[POOL]
    names = [challenger] if rival is None else [challenger, rival]
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
        random=share(table["random"]),
        oracle=share(table["oracle"]),
        challenger=measured[challenger],
        rival=None if rival is None else measured[rival],
        difference=None if rival is None else share(table[chosen[challenger]] - table[chosen[rival]]),
    )


def verdict(difference: Share | None, tolerance: float) -> tuple[bool, str]:
    """Whether the challenger takes over, and why, in words."""
    if difference is None:
        return True, "there was no champion yet"
    said = f"solves {difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}] of the problems more than the champion"
    if difference.low > tolerance:
        return True, f"{said}: the interval lies above the tolerance {tolerance:g}"
    return False, f"{said}: the interval does not lie above the tolerance {tolerance:g}"
