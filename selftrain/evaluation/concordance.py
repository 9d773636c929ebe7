"""Counts the pairs of a passing and a failing candidate that a ranker orders right, over all candidates and for every resample.

All counts are whole or half numbers below 2^53, so they are exact in any order of summation. Time and memory are linear in the
candidates but for sorting.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selftrain.evaluation.pools import Bools, Floats

FAILING = 1024
"""Number of failing candidates whose weights are summed at once; with RESAMPLES, they fit into a processor's cache."""
RESAMPLES = 128
"""Number of resamples that are counted at once."""


def pairs_won(scores: Sequence[Floats], passed: Sequence[Bools], weights: Floats) -> Floats:
    """[resamples] number of pairs, of any problems, in which the passing candidate scores higher; ties count half.

    scores, passed  [problems] of [candidates]
    weights         [resamples, problems] how often each problem is drawn, whole numbers

    A pair of a candidate of problem p and one of problem q counts weights[p] x weights[q] times.
    """
    owner = np.repeat(np.arange(len(scores)), [len(part) for part in scores])
    every, right = np.concatenate(scores), np.concatenate(passed)
    order = np.argsort(every, kind="stable")
    every, right, owner = every[order], right[order], owner[order]
    wrong = every[~right]
    lower, upto = (np.searchsorted(wrong, every[right], side) for side in ("left", "right"))
    sides = [lower] if np.array_equal(lower, upto) else [lower, upto]
    small = weights.astype(np.min_scalar_type(int(weights.max())))
    found = [
        sum(_beaten(np.ascontiguousarray(part.T), owner[right], owner[~right], side) for side in sides)
        for part in np.split(small, range(RESAMPLES, len(small), RESAMPLES))
    ]
    return np.concatenate(found) / len(sides)


def _beaten(drawn: NDArray[Any], right: NDArray[Any], wrong: NDArray[Any], places: NDArray[Any]) -> Floats:
    """[resamples] number of pairs in which the failing candidate comes before the place of the passing one.

    drawn         [problems, resamples]
    right, wrong  the problems of the passing and of the failing candidates, both by score
    places        the number of failing candidates that each passing one beats, ascending
    """
    won = np.zeros(drawn.shape[1])
    before = np.zeros(drawn.shape[1])
    for start in range(0, max(1, len(wrong)), FAILING):
        stop = min(start + FAILING, len(wrong))
        # The last block takes the passing candidates that beat all failing ones, too.
        first, last = np.searchsorted(places, [start, stop + (stop == len(wrong))])
        sums = np.zeros((stop - start + 1, drawn.shape[1]), np.int64 if drawn.itemsize > 1 else np.int32)
        np.cumsum(drawn[wrong[start:stop]], axis=0, dtype=sums.dtype, out=sums[1:])
        for low in range(first, last, FAILING):
            high = min(low + FAILING, last)
            mine = drawn[right[low:high]]
            won += (mine * sums[places[low:high] - start]).sum(axis=0, dtype=np.int64)
            won += before * mine.sum(axis=0, dtype=np.int64)
        before += sums[-1]
    return won


def own_pairs_won(scores: Floats, passed: Bools) -> float:
    """Number of pairs of one problem's candidates in which the passing one scores higher; ties count half."""
    wrong, right = np.sort(scores[~passed]), scores[passed]
    return float(sum(np.searchsorted(wrong, right, side).sum() for side in ("left", "right"))) / 2
