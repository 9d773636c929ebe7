"""Tests of the counts of rightly ordered pairs: equal, bit for bit, to the plain formula over all pairs of problems; linear."""

import time

import numpy as np
import pytest

from selftrain.evaluation import concordance
from selftrain.evaluation.concordance import own_pairs_won, pairs_won
from selftrain.evaluation.metrics import bootstrap_weights
from selftrain.evaluation.pools import Bools, Floats


def plain(scores: list[Floats], passed: list[Bools]) -> Floats:
    """[problems, problems] pairs of a passing candidate of the one and a failing one of the other that are ordered right."""
    return np.array(
        [
            [
                sum(
                    float(right > wrong) + 0.5 * float(right == wrong)
                    for right in of_p[good]
                    for wrong in of_q[~other]
                )
                for of_q, other in zip(scores, passed, strict=True)
            ]
            for of_p, good in zip(scores, passed, strict=True)
        ]
    )


@pytest.mark.parametrize("seed", range(30))
def test_counts_are_those_of_the_plain_formula(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    monkeypatch.setattr(concordance, "FAILING", int(rng.integers(1, 9)))
    monkeypatch.setattr(concordance, "RESAMPLES", int(rng.integers(1, 50)))
    sizes = rng.integers(1, 9, size=rng.integers(1, 12))
    share = rng.choice([0.0, 0.2, 0.5, 1.0])
    distinct = rng.choice([1, 3, 1000])  # one value: all tie
    scores = [rng.integers(0, distinct, n) / 7 - 3 for n in sizes]
    passed = [rng.random(n) < share for n in sizes]
    tasks = [str(rng.integers(0, 4)) for _ in sizes]
    weights = bootstrap_weights(tasks, 40, seed)
    wins = plain(scores, passed)
    expected = np.einsum("rp,pq,rq->r", weights, wins, weights)
    assert pairs_won(scores, passed, weights).tolist() == expected.tolist()
    own = [own_pairs_won(*each) for each in zip(scores, passed, strict=True)]
    assert own == np.diag(wins).tolist()


def test_a_problem_that_is_drawn_very_often_is_counted_as_often() -> None:
    scores, passed = [np.array([2.0, 1.0]), np.array([0.0])], [np.array([True, False]), np.array([False])]
    weights = np.array([[1.0, 1.0], [70_000.0, 0.0], [300.0, 70_000.0]])
    assert pairs_won(scores, passed, weights).tolist() == [2.0, 70_000.0**2, 300 * (300 + 70_000.0)]


def test_time_is_linear_in_the_problems() -> None:
    rng = np.random.default_rng(0)

    def seconds(problems: int) -> float:
        scores = list(rng.normal(size=(problems, 20)))
        passed = list(rng.random((problems, 20)) < 0.5)
        weights = bootstrap_weights([str(each) for each in range(problems)], 100)
        spent = []
        for _ in range(3):
            start = time.process_time()
            pairs_won(scores, passed, weights)
            spent.append(time.process_time() - start)
        return min(spent)

    assert seconds(8000) < 25 * seconds(800)  # all pairs of problems would take 100 times as long
