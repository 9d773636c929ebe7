"""Scores as chances: sigmoid(scale * score + offset) is fitted to the chance that a candidate passes, and checked on other problems.

The fit is Platt's (1999): logistic regression on the score. Its targets are not 1 and 0 but (passing + 1) / (passing + 2) and
1 / (failing + 2), so that it is finite where scores separate the classes. 1 / scale is the temperature of Guo et al. (2017).
"""

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from selftrain.evaluation.pools import Bools, Floats, Pool

BINS = 10
"""Number of bins of the calibration error."""
DIGITS = 6
"""Significant digits that are kept: the last bits of a fit depend on the processor."""


class Calibration(TypedDict):
    """How a reranker's scores become chances, and the calibration error of these chances on the test split.

    scale, offset  the chance of passing is sigmoid(scale * score + offset)
    ece_raw        the error of sigmoid(score), 0 to 1
    ece            the error of the fitted chances, 0 to 1
    """

    scale: float
    offset: float
    ece_raw: float
    ece: float


def calibrate(validation: Pool, test: Pool, ranker: str) -> Calibration:
    """Fit the chances on the candidates of `validation`, and measure their error on those of `test`."""
    scale, offset = fit_chances(*_candidates(validation, ranker))
    scores, passed = _candidates(test, ranker)
    return {
        "scale": scale,
        "offset": offset,
        "ece_raw": calibration_error(chances(scores), passed),
        "ece": calibration_error(chances(scores, scale, offset), passed),
    }


def chances(scores: Floats, scale: float = 1.0, offset: float = 0.0) -> Floats:
    """sigmoid(scale * score + offset) of each score."""
    return (1 + np.tanh((scale * scores + offset) / 2)) / 2


def fit_chances(scores: Floats, passed: Bools) -> tuple[float, float]:
    """The scale and the offset with the highest likelihood, by Newton's method; the scale is 0 where all scores are equal.

    scores, passed  [candidates], at least one
    """
    middle, spread = float(scores.mean()), float(scores.std())
    columns = np.stack([(scores - middle) / (spread or 1.0), np.ones(len(scores))], 1)
    right = int(passed.sum())
    targets = np.where(passed, (right + 1) / (right + 2), 1 / (len(passed) - right + 2))

    def loss(weights: Floats) -> float:
        logits = columns @ weights
        return float(np.sum(np.logaddexp(0, logits) - targets * logits))

    weights = np.zeros(2)
    for _ in range(100):
        found = chances(columns @ weights)
        slope = columns.T @ (found - targets)
        curvature = columns.T @ (columns * (found * (1 - found))[:, None])
        step = np.linalg.lstsq(curvature, slope, rcond=None)[0]
        while loss(weights - step) > loss(weights) and np.abs(step).max() > 1e-12:
            step = step / 2
        weights = weights - step
        if np.abs(step).max() < 1e-10:
            break
    weights = np.round(weights, DIGITS) + 0.0  # no negative zero
    scale = float(weights[0]) / spread if spread else 0.0
    return _rounded(scale), _rounded(float(weights[1]) - scale * middle)


def calibration_error(predicted: Floats, passed: Bools, bins: int = BINS) -> float:
    """The expected calibration error (Naeini et al. 2015): mean of |share that passes - mean chance| over bins of candidates.

    The bins have equally many candidates, in the order of their chances; candidates of one chance are in one bin, so that the
    result does not depend on the order of ties.
    """
    sums = np.bincount(_places(predicted, bins), passed - predicted, minlength=bins)
    return _rounded(float(np.abs(sums).sum()) / len(predicted))


class Bin(TypedDict):
    """Candidates with similar chances: their number, their mean chance and the share that passes, 0 to 1."""

    candidates: int
    chance: float
    passed: float


def reliability(pool: Pool, ranker: str, scale: float = 1.0, offset: float = 0.0) -> list[Bin]:
    """The bins of `calibration_error` for the chances sigmoid(scale * score + offset), lowest chance first, without empty bins."""
    scores, passed = _candidates(pool, ranker)
    predicted = chances(scores, scale, offset)
    places = _places(predicted, BINS)
    return [
        {
            "candidates": int((places == at).sum()),
            "chance": float(predicted[places == at].mean()),
            "passed": float(passed[places == at].mean()),
        }
        for at in np.unique(places)
    ]


def _places(predicted: Floats, bins: int) -> NDArray[np.intp]:
    """[candidates] the bin of each candidate, from 0."""
    order = np.sort(predicted)
    edges = order[np.arange(1, bins) * len(order) // bins]
    return np.searchsorted(edges, predicted, side="right")


def _candidates(pool: Pool, ranker: str) -> tuple[Floats, Bools]:
    """[candidates] the scores of all problems' candidates, and whether they pass."""
    return (
        np.concatenate([problem.scores[ranker] for problem in pool.problems]),
        np.concatenate([problem.passed for problem in pool.problems]),
    )


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
