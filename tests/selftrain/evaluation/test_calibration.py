"""Tests of the chances that are fitted to scores, and of their calibration error, against numbers worked out by hand."""

from math import exp, log

import numpy as np
import pytest

from selftrain.evaluation.calibration import calibrate, calibration_error, chances, fit_chances, reliability
from tests.selftrain.evaluation.test_metrics import pool, problem


def test_two_scores_get_the_mean_targets_of_their_candidates() -> None:
    # 4 of 8 pass, so the targets are 5/6 and 1/6. At score 0 one of 4 passes, mean target 1/3; at score 2 three of 4, 2/3.
    scores = np.array([0.0] * 4 + [2.0] * 4)
    passed = np.array([True, False, False, False, True, True, True, False])
    scale, offset = fit_chances(scores, passed)
    assert (scale, offset) == (pytest.approx(log(2), abs=1e-5), pytest.approx(-log(2), abs=1e-5))
    assert chances(np.array([0.0, 2.0]), scale, offset) == pytest.approx([1 / 3, 2 / 3], abs=1e-5)


def test_scores_that_separate_the_classes_have_a_finite_fit() -> None:
    # 2 of 4 pass: the targets are 3/4 and 1/4, which are sigmoid(+-ln 3).
    scores, passed = np.array([-1.0, -1.0, 1.0, 1.0]), np.array([False, False, True, True])
    assert fit_chances(scores, passed) == (pytest.approx(log(3), abs=1e-5), pytest.approx(0, abs=1e-9))
    wide = fit_chances(1e6 * scores + 1e9, passed)
    assert chances(1e6 * scores + 1e9, *wide) == pytest.approx([1 / 4] * 2 + [3 / 4] * 2, abs=0.01)
    assert fit_chances(-scores, passed)[0] == pytest.approx(-log(3), abs=1e-5)


def test_equal_scores_and_a_single_class_have_a_chance_without_a_scale() -> None:
    # 1 of 3 passes: the mean of 2/3, 1/4 and 1/4 is 7/18.
    one = fit_chances(np.array([3.0, 3.0, 3.0]), np.array([True, False, False]))
    assert one == (0.0, pytest.approx(log(7 / 11), abs=1e-5))
    # 2 of 2 pass: both targets are 3/4.
    assert fit_chances(np.array([-5.0, 8.0]), np.array([True, True])) == (
        0.0,
        pytest.approx(log(3), abs=1e-5),
    )


def test_the_fit_finds_the_chances_that_data_was_drawn_from() -> None:
    rng = np.random.default_rng(5)
    scores = rng.normal(2, 3, 20_000)
    passed = rng.random(20_000) < 1 / (1 + np.exp(-(0.5 * scores - 1.5)))
    scale, offset = fit_chances(scores, passed)
    assert (scale, offset) == (pytest.approx(0.5, abs=0.03), pytest.approx(-1.5, abs=0.08))
    assert calibration_error(chances(scores, scale, offset), passed) < 0.015


def test_the_calibration_error_is_the_mean_distance_over_bins_of_equally_many() -> None:
    predicted, passed = np.array([0.9, 0.1, 0.6, 0.2]), np.array([True, False, True, True])
    # {0.1, 0.2}: |1 - 0.3| = 0.7; {0.6, 0.9}: |2 - 1.5| = 0.5; over 4 candidates.
    assert calibration_error(predicted, passed, bins=2) == pytest.approx(0.3)
    # One bin for each: 0.1 + 0.8 + 0.4 + 0.1.
    assert calibration_error(predicted, passed) == pytest.approx(1.4 / 4)
    # Ties are in one bin, whatever their order.
    assert calibration_error(np.full(4, 0.5), np.array([True, True, False, False]), bins=2) == 0


def test_the_fit_is_of_one_pool_and_the_error_of_the_other() -> None:
    validation = pool(
        problem("a", "+---", scores={"rm-1": [0, 0, 0, 0]}),
        problem("b", "+++-", scores={"rm-1": [2, 2, 2, 2]}),
    )
    test = pool(problem("c", "+-", scores={"rm-1": [0, 2]}))
    found = calibrate(validation, test, "rm-1")
    assert (found["scale"], found["offset"]) == (
        pytest.approx(log(2), abs=1e-5),
        pytest.approx(-log(2), abs=1e-5),
    )
    # Chances 1/2 and sigmoid(2) before, 1/3 and 2/3 after; the first passes, the second does not.
    assert found["ece_raw"] == pytest.approx((1 / 2 + 1 / (1 + exp(-2))) / 2, abs=1e-5)
    assert found["ece"] == pytest.approx(2 / 3, abs=1e-5)


def test_the_bins_of_a_reliability_plot_are_those_of_the_error() -> None:
    # 20 candidates, two a bin: at the chances sigmoid(score) of 10 scores, each with one that passes and one that fails.
    scores = np.repeat(np.log(np.arange(1, 11) / (11 - np.arange(1, 11))), 2)
    made = pool(problem("p", "+-" * 10, scores={"rm-1": list(scores)}))
    bins = reliability(made, "rm-1")
    assert [one["candidates"] for one in bins] == [2] * 10
    assert [one["chance"] for one in bins] == pytest.approx([at / 11 for at in range(1, 11)])
    assert {one["passed"] for one in bins} == {0.5}
    error = sum(abs(one["passed"] - one["chance"]) * one["candidates"] for one in bins) / 20
    assert calibration_error(chances(scores), made.problems[0].passed) == pytest.approx(error, rel=1e-5)
