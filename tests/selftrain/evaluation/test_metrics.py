"""Tests of the metrics of pools (pass@k, ways of picking, intervals) against numbers worked out by hand."""

import itertools
import math
import time
from pathlib import Path

import numpy as np
import pytest

from sandbox.verdicts import Verdict
from selftrain.errors import DataError, UsageError
from selftrain.evaluation.comparisons import compare_pools, evaluate_pools
from selftrain.evaluation.metrics import (
    best_of,
    bootstrap_weights,
    choose_logprob_weight,
    choose_ranker,
    mean_estimate,
    outcomes,
    pass_at_k,
    pool_metrics,
)
from selftrain.evaluation.pools import (
    Pool,
    PoolProblem,
    join_runs,
    load_pool,
    make_pool,
    with_agreement,
    with_logprob,
)
from selftrain.records import Candidate, Execution, Problem, write_records
from selftrain.units import doublings


def problem(
    name: str,
    passed: str,
    *,
    scores: dict[str, list[float]] | None = None,
    logprob: list[float] | None = None,
    n_tokens: list[int] | None = None,
    texts: list[str] | None = None,
    examples: list[bool] | None = None,
    greedy: bool | None = True,
    language: str = "py",
    task: str | None = None,
) -> PoolProblem:
    """`passed`: one character a candidate, + for a passing and - for a failing one."""
    n = len(passed)
    return PoolProblem(
        id=name,
        task=task or name,
        language=language,
        prompt=f"# {name}\n",
        completions=tuple(texts or [f"program {i}" for i in range(n)]),
        verdicts=tuple(Verdict.passed if mark == "+" else Verdict.wrong_answer for mark in passed),
        logprob=np.array(logprob or [0.0] * n, float),
        n_tokens=np.array(n_tokens or [1] * n),
        examples_passed=None if examples is None else np.array(examples),
        scores={name: np.array(values, float) for name, values in (scores or {}).items()},
        greedy_passed=greedy,
    )


def pool(*problems: PoolProblem, name: str = "sft") -> Pool:
    return Pool(name, problems)


def row(table: list, name: str) -> dict:
    return next(entry for entry in table if entry["name"] == name)


@pytest.mark.parametrize(
    ("n", "c", "k", "expected"),
    [
        (4, 1, 1, 1 / 4),
        (4, 1, 2, 1 / 2),  # 3 of the 6 pairs hold the one that passes
        (4, 2, 2, 5 / 6),
        (4, 0, 4, 0.0),
        (4, 4, 1, 1.0),
        (4, 3, 2, 1.0),  # two that fail cannot be drawn
        (1000, 1, 1000, 1.0),
    ],
)
def test_pass_at_k_is_the_share_of_subsets_with_a_passing_candidate(
    n: int, c: int, k: int, expected: float
) -> None:
    assert pass_at_k(n, c, k) == pytest.approx(expected, abs=1e-12)


def test_pass_at_k_refuses_more_picks_than_candidates() -> None:
    with pytest.raises(UsageError, match=r"pass@5 .* got 4"):
        pass_at_k(4, 1, 5)
    with pytest.raises(UsageError):
        pass_at_k(4, 1, 0)
    with pytest.raises(ValueError, match="c=5, n=4"):
        pass_at_k(4, 5, 1)


def test_logprob_pick_is_per_token_so_that_a_long_program_is_not_punished_for_its_length() -> None:
    # means: -1.0 and -0.5; sums: -2 and -4
    picks = problem("a", "-+", logprob=[-2.0, -4.0], n_tokens=[2, 8]).picks
    assert picks["logprob"] == 1
    assert picks["logprob_sum"] == 0


def test_ties_go_to_the_lowest_sample() -> None:
    picks = problem("a", "-++", scores={"rm-1": [0.5, 0.5, 0.5]}).picks
    assert picks == {"logprob": 0, "logprob_sum": 0, "majority": 0, "examples": 0, "rm-1": 0}


def test_the_pick_from_k_candidates_is_the_mean_over_all_subsets() -> None:
    # Of three, ranked b (+), c (-), a (+): of the pairs {a,b}, {a,c}, {b,c} the picks are b (+), c (-) and b (+).
    pairs = pool(problem("x", "++-", scores={"rm-1": [1, 3, 2]}))
    assert best_of(pairs, "rm-1", 1) == pytest.approx([2 / 3])
    assert best_of(pairs, "rm-1", 2) == pytest.approx([2 / 3])
    assert best_of(pairs, "rm-1", 3) == pytest.approx([1.0])
    assert best_of(pairs, "oracle", 2) == pytest.approx([1.0])
    # Ties go to the lowest index, as in a pick from all: a, b, c.
    tied = pool(problem("y", "+-+", scores={"rm-1": [0, 0, 0]}))
    assert best_of(tied, "rm-1", 2) == pytest.approx([2 / 3])  # {a,b}: +, {a,c}: +, {b,c}: -
    assert best_of(tied, "rm-1", 3) == outcomes(tied)["rm-1"]


def test_the_pick_from_k_equals_a_count_of_subsets() -> None:
    rng = np.random.default_rng(3)
    marks = "".join(rng.choice(["+", "-"], 7))
    examples = [bool(value) for value in rng.integers(0, 2, 7)]
    logprob = [float(value) for value in rng.integers(-3, 0, 7)]  # with ties
    one = problem(
        "z", marks, logprob=logprob, examples=examples, scores={"rm-1": list(rng.integers(0, 4, 7))}
    )
    keys = {
        "rm-1": lambda i: (one.scores["rm-1"][i], -i),
        "logprob": lambda i: (logprob[i], -i),
        "examples": lambda i: (examples[i], logprob[i], -i),
    }
    for way, key in keys.items():
        for k in range(1, 8):
            subsets = list(itertools.combinations(range(7), k))
            expected = sum(marks[max(subset, key=key)] == "+" for subset in subsets) / len(subsets)
            assert best_of(pool(one), way, k) == pytest.approx([expected]), (way, k)


def test_curves_end_at_the_pick_from_all() -> None:
    assert doublings(1) == [1]
    assert doublings(6) == [1, 2, 4, 6]
    assert doublings(64) == [1, 2, 4, 8, 16, 32, 64]
    both = problem("x", "++-", scores={"rm-1": [1, 3, 2]}), problem("y", "--+", scores={"rm-1": [1, 0, 2]})
    overall = pool_metrics(pool(*both), 50)["overall"]
    assert list(overall["best_of"]["oracle"]) == ["1", "2", "3"]
    assert "examples" not in overall["best_of"]
    assert overall["rankers"]["rm-1"]["best_of"]["3"]["value"] == overall["rankers"]["rm-1"]["value"] == 1.0
    assert overall["best_of"]["oracle"]["2"]["value"] == pytest.approx((1 + 2 / 3) / 2)
    assert overall["best_of"]["logprob"]["1"]["value"] == overall["random"]["value"]


def test_groups_of_all_candidates_give_no_curve() -> None:
    # Three equal programs that pass and a likelier one: of two candidates with different programs the largest group has one, so
    # log-probability decides, and the sizes of the groups of all four say nothing about it.
    scores = {"rm-1": [1, 2, 3, 4], "agreement": [3, 3, 3, 1]}
    one = with_agreement(pool(problem("x", "+++-", logprob=[-2, -2, -2, -1], scores=scores)))
    rankers = pool_metrics(one, 50)["overall"]["rankers"]
    assert {name: list(row["best_of"]) for name, row in rankers.items()} == {
        "rm-1": ["1", "2", "4"],
        "agreement": [],
        "rm-1+agreement": [],
    }
    assert rankers["agreement"]["value"] == 1.0


def test_majority_counts_identical_programs_and_breaks_ties_by_logprob() -> None:
    three_b = problem("a", "--+++", texts=["a", "a", "b", "b\n", "b  "], logprob=[0, 0, -3, -2, -4])
    assert (
        three_b.picks["majority"] == 3
    )  # white space at the end is no difference; the likeliest of them is taken
    tied = problem("b", "--++-", texts=["a", "a", "b", "b", "c"], logprob=[-3, -3, -1, -2, 0])
    assert tied.picks["majority"] == 2
    indented = problem("c", "+--", texts=["x", "  x", "  x"])
    assert indented.picks["majority"] == 1  # leading white space is one


def test_examples_pick_the_likeliest_that_pass_them_or_else_the_likeliest() -> None:
    some = problem("a", "-+-", examples=[False, True, True], logprob=[0, -1, -2])
    assert some.picks["examples"] == 1
    none = problem("b", "-+-", examples=[False, False, False], logprob=[-2, -1, -3])
    assert none.picks["examples"] == 1


def test_outcomes_of_one_problem() -> None:
    one = problem(
        "a",
        "+---",
        scores={"rm-1": [3, 2, 1, 0], "rm-2": [0, 1, 2, 3]},
        logprob=[-4, -3, -2, -1],
        texts=["x", "y", "y", "z"],
        examples=[True, False, False, True],
        greedy=False,
    )
    table = {way: values.tolist() for way, values in outcomes(pool(one)).items()}
    assert table == {
        "greedy": [0.0],
        "random": [0.25],
        "oracle": [1.0],
        "logprob": [0.0],
        "logprob_sum": [0.0],
        "majority": [0.0],
        "examples": [0.0],
        "rm-1": [1.0],
        "rm-2": [0.0],
    }


def test_metrics_of_two_problems() -> None:
    two = pool(
        problem("a", "+-", scores={"rm-1": [1.0, 0.0]}, examples=[True, False]),
        problem("b", "--++", scores={"rm-1": [5.0, 1.0, 2.0, 2.0]}, greedy=False),
    )
    found = pool_metrics(two)["overall"]
    values = {
        way: found[way]["value"] for way in ("greedy", "random", "logprob", "majority", "examples", "oracle")
    }
    assert values == {
        "greedy": 0.5,
        "random": 0.5,
        "logprob": 0.5,
        "majority": 0.5,
        "examples": 0.5,
        "oracle": 1.0,
    }
    assert (found["problems"], found["samples"]) == (2, 2)
    ranker = found["rankers"]["rm-1"]
    assert ranker["value"] == 0.5
    assert ranker["gap_recovered"]["value"] == 0.0
    # of b's four pairs, 2 > 1 holds twice and 2 > 5 never: 0.5; a's one pair holds: 1
    assert ranker["pair_accuracy"]["value"] == 0.75
    # passing 1, 2, 2 against failing 0, 5, 1: 1 beats 0 and ties with 1, each 2 beats 0 and 1
    assert ranker["auc"]["value"] == pytest.approx(5.5 / 9)


def test_gap_recovered_is_the_ratio_of_the_means() -> None:
    found = pool_metrics(
        pool(
            problem("a", "+---", scores={"rm-1": [1, 0, 0, 0]}),  # random 1/4, oracle 1, picked
            problem("b", "---+", scores={"rm-1": [1, 0, 0, 0]}),  # random 1/4, oracle 1, missed
            problem("c", "----", scores={"rm-1": [1, 0, 0, 0]}),  # nothing to gain
        )
    )["overall"]["rankers"]["rm-1"]
    # (1/3 - 1/6) / (2/3 - 1/6)
    assert found["gap_recovered"]["value"] == pytest.approx(1 / 3)
    assert found["gap_recovered"]["low"] <= 1 / 3 <= found["gap_recovered"]["high"]


@pytest.mark.parametrize("passed", ["+++", "---"])
def test_with_one_class_only_there_is_no_gap_and_nothing_to_order(passed: str) -> None:
    found = pool_metrics(pool(problem("a", passed, scores={"rm-1": [1, 2, 3]})))["overall"]
    ranker = found["rankers"]["rm-1"]
    assert ranker["value"] == float(passed == "+++")
    assert (ranker["gap_recovered"], ranker["auc"], ranker["pair_accuracy"]) == (None, None, None)
    assert found["examples"] is None


def test_auc_needs_both_classes_but_not_in_one_problem() -> None:
    found = pool_metrics(
        pool(problem("a", "++", scores={"rm-1": [2, 3]}), problem("b", "--", scores={"rm-1": [1, 2]}))
    )["overall"]["rankers"]["rm-1"]
    assert found["auc"]["value"] == pytest.approx(3.5 / 4)
    assert found["pair_accuracy"] is None
    assert found["gap_recovered"] is None


def test_languages_are_measured_apart() -> None:
    found = pool_metrics(
        pool(problem("a", "+", language="py"), problem("b", "-", language="sh", greedy=False))
    )
    assert {name: part["random"]["value"] for name, part in found["languages"].items()} == {
        "py": 1.0,
        "sh": 0.0,
    }
    assert found["overall"]["random"]["value"] == 0.5


def test_an_unjudged_greedy_candidate_is_left_out_and_a_pool_without_any_is_refused() -> None:
    found = pool_metrics(pool(problem("a", "+", greedy=True), problem("b", "+", greedy=None)))
    assert found["overall"]["greedy"]["value"] == 1.0
    with pytest.raises(UsageError, match="no greedy candidate"):
        pool_metrics(pool(problem("a", "+", greedy=None)))


def test_bootstrap_draws_the_problems_of_one_task_together() -> None:
    weights = bootstrap_weights(["t1", "t2", "t1"], resamples=50, seed=3)
    assert weights.shape == (51, 3)
    assert weights[0].tolist() == [1.0, 1.0, 1.0]
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[1:, 0] + weights[1:, 1] == 2).all()  # two tasks are drawn from two
    assert len(np.unique(weights[1:], axis=0)) == 3


def test_intervals_depend_on_the_seed_only() -> None:
    values = np.arange(10.0)
    tasks = [str(i) for i in range(10)]
    first, again, other = (mean_estimate(values, bootstrap_weights(tasks, 200, seed)) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert first["value"] == other["value"] == 4.5


def test_the_interval_of_a_constant_is_a_point_and_of_nothing_is_none() -> None:
    weights = bootstrap_weights(["a", "b"], 100)
    assert mean_estimate(np.array([0.5, 0.5]), weights) == {"value": 0.5, "low": 0.5, "high": 0.5}
    assert mean_estimate(np.array([math.nan, math.nan]), weights) is None


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    """400 samples of 60 tosses with p = 0.3: 95 % nominal; the percentile bootstrap runs a little under."""
    rng = np.random.default_rng(0)
    weights = bootstrap_weights([f"{i:03}" for i in range(60)], resamples=500)
    estimates = [mean_estimate((rng.random(60) < 0.3).astype(float), weights) for _ in range(400)]
    coverage = np.mean([e["low"] <= 0.3 <= e["high"] for e in estimates])
    assert 0.91 <= coverage <= 0.98


def test_languages_of_one_task_do_not_narrow_the_interval() -> None:
    rng = np.random.default_rng(0)
    solved = rng.random(40) < 0.5
    once = [problem(f"{i}", "+" if solved[i] else "-", task=f"{i:02}") for i in range(40)]
    thrice = [problem(f"{i}{x}", "+" if solved[i] else "-", task=f"{i:02}") for i in range(40) for x in "abc"]
    one, three = (pool_metrics(pool(*problems))["overall"]["random"] for problems in (once, thrice))
    assert three == pytest.approx(one)


def test_a_paired_difference_is_surer_than_its_parts() -> None:
    rng = np.random.default_rng(0)
    problems = []
    for i in range(60):
        solved = rng.random() < 0.5
        first, second = (
            [1.0, 0.0],
            [1.0, 0.0] if i % 6 else [0.0, 1.0],
        )  # rm-2 is right where rm-1 is not, 10 times
        order = "+-" if solved or i % 6 == 0 else "--"
        problems.append(problem(f"{i:02}", order, scores={"rm-1": second, "rm-2": first}))
    both = pool(*problems)
    difference = row(compare_pools([both]), "sft/rm-2-rm-1")
    assert difference["value"] == pytest.approx(10 / 60)
    assert difference["low"] > 0
    parts = pool_metrics(both)["overall"]["rankers"]
    assert parts["rm-1"]["high"] > parts["rm-2"]["low"]  # the intervals of the parts overlap


def test_comparisons_of_a_pool_are_against_the_baselines_and_the_round_before() -> None:
    scores = {name: [1.0, 0.0] for name in ("rm-1", "rm-1+logprob", "rm-2", "rm-2+logprob", "rm-2~shuffled")}
    names = [entry["name"] for entry in compare_pools([pool(problem("a", "+-", scores=scores))])]
    baselines = ("random", "logprob", "majority")
    assert names == [
        *(f"sft/rm-1-{b}" for b in baselines),
        *(f"sft/rm-1+logprob-{b}" for b in baselines),
        *(f"sft/rm-2-{b}" for b in (*baselines, "rm-1")),
        *(f"sft/rm-2+logprob-{b}" for b in (*baselines, "rm-1+logprob")),
        "sft/rm-2~shuffled-random",
    ]


def test_comparisons_between_rounds() -> None:
    right, wrong = [1.0, 0.0], [0.0, 1.0]
    sft = pool(
        problem("a", "+-", scores={"rm-1": [1.0, 2.0], "rm-2": right}),
        problem("b", "+---", scores={"rm-1": [0.0] * 4, "rm-2": [0.0] * 4}),
    )
    one = pool(
        problem("b", "+-", scores={"rm-1": [4.0, 5.0], "rm-2": right}),
        problem("a", "+-", scores={"rm-1": [3.0, 2.0], "rm-2": right}),
        problem("only here", "+-", scores={"rm-1": wrong, "rm-2": right}),
        name="ppo-1",
    )
    two = pool(
        problem("a", "++", scores={"rm-1": right, "rm-2": [8.0, 8.0]}),
        problem("b", "-+", scores={"rm-1": right, "rm-2": [6.0, 7.0]}),
        name="ppo-2",
    )
    table = compare_pools([sft, one, two])
    values = {row["name"]: row["value"] for row in table}
    # of a and b, rm-1 solves a on ppo-1; a random pick from sft solves 1/2 of a and 1/4 of b
    assert values["system/1-0"] == pytest.approx(1 / 2 - 3 / 8)
    # rm-2 solves both on ppo-2
    assert values["system/2-1"] == pytest.approx(1 - 1 / 2)
    # on ppo-1, rm-1 fails on b and on "only here", rm-2 nowhere
    assert values["ppo-1/top_pick_fails/rm-2-rm-1"] == pytest.approx(-2 / 3)
    assert values["ppo-1/rm-2-rm-1"] == pytest.approx(2 / 3)
    # mean rm-1 score: a 2.5 against 1.5, b 4.5 against 0
    assert values["score/ppo-1-sft"] == pytest.approx(2.75)
    # mean rm-2 score: a 8 against 0.5, b 6.5 against 0
    assert values["score/ppo-2-sft"] == pytest.approx(7.0)
    assert all(set(row) == {"name", "value", "low", "high"} for row in table)


def test_pools_are_paired_by_problem_and_not_by_place() -> None:
    problems = [problem(f"{i}", "+-", scores={"rm-1": [i, i * i]}) for i in range(5)]
    same = compare_pools([pool(*problems), pool(*reversed(problems), name="ppo-1")])
    assert row(same, "score/ppo-1-sft") == {"name": "score/ppo-1-sft", "value": 0.0, "low": 0.0, "high": 0.0}


def test_a_pool_that_misses_its_rival_is_compared_to_what_is_there() -> None:
    names = [
        c["name"] for c in compare_pools([pool(problem("a", "+-", scores={"rm-2": [1, 0]}), name="ppo-2")])
    ]
    assert names == ["ppo-2/rm-2-random", "ppo-2/rm-2-logprob", "ppo-2/rm-2-majority"]


def test_controls_are_compared_but_are_no_rankers_of_the_report() -> None:
    shuffled = problem("a", "+-", scores={"rm-1": [1, 0], "rm-1~shuffled": [0, 1]})
    found = evaluate_pools([pool(shuffled)])
    assert list(found["pools"]["sft"]["overall"]["rankers"]) == ["rm-1"]
    assert row(found["comparisons"], "sft/rm-1~shuffled-random")["value"] == -0.5


def test_logprob_weight_is_the_smallest_that_picks_best() -> None:
    light = problem("light", "+-", scores={"rm-1": [2, 0]}, logprob=[-1, 0])  # right while w <= 2
    heavy = problem("heavy", "-+", scores={"rm-1": [3, 1]}, logprob=[-1, 0])  # right once w > 2
    some = problem("some", "-+", scores={"rm-1": [1, 0]}, logprob=[-1, 0])  # right once w > 1
    assert choose_logprob_weight(pool(light, heavy), "rm-1") == 0.0
    assert choose_logprob_weight(pool(heavy), "rm-1") == 4.0  # spreads 1 and 0.5: tries 0, 0.5, 1, 2, 4, 8
    assert (
        choose_logprob_weight(pool(light, some), "rm-1") == 1.5
    )  # spreads 0.75 and 0.5: 0, 0.375, 0.75, 1.5, 3, 6
    assert choose_logprob_weight(pool(problem("flat", "+-", scores={"rm-1": [0, 1]})), "rm-1") == 0.0


def test_with_logprob_adds_the_weighted_mean_to_score_and_control() -> None:
    one = problem(
        "a", "+-", scores={"rm-1": [1, 2], "rm-1~shuffled": [0, 0]}, logprob=[-2, -6], n_tokens=[2, 3]
    )
    added = with_logprob(pool(one), {"rm-1": 0.5, "rm-9": 1.0}).problems[0].scores
    assert {name: values.tolist() for name, values in added.items()} == {
        "rm-1": [1, 2],
        "rm-1~shuffled": [0, 0],
        "rm-1+logprob": [0.5, 1.0],
        "rm-1+logprob~shuffled": [-0.5, -1.0],
    }


def test_the_ranker_is_chosen_by_its_picks() -> None:
    validation = pool(problem("a", "-+", scores={"rm-1": [1, 0], "rm-1+logprob": [0, 1]}))
    assert choose_ranker(validation, ["rm-1", "rm-1+logprob"]) == "rm-1+logprob"
    tied = pool(problem("a", "++", scores={"rm-1": [1, 0], "rm-1+logprob": [0, 1]}))
    assert choose_ranker(tied, ["rm-1", "rm-1+logprob"]) == "rm-1"


def test_runs_are_joined_with_their_tasks_shared() -> None:
    joined = join_runs([pool(problem("a", "+")), pool(problem("a", "-"), problem("b", "-"))])
    assert [(p.id, p.task) for p in joined.problems] == [("0/a", "a"), ("1/a", "a"), ("1/b", "b")]
    assert pool_metrics(joined)["overall"]["random"]["value"] == pytest.approx(1 / 3)


def test_a_pool_is_made_from_records() -> None:
    task = Problem(id="p", task="t", language="sh", prompt="#", tests="", split="test", source="bank")
    lost = Problem(id="q", task="u", language="sh", prompt="#", tests="", split="test", source="bank")
    verdicts = {1: Verdict.passed, -1: Verdict.passed, 0: Verdict.timeout, 2: Verdict.sandbox_error}
    candidates = [Candidate(f"p#{i}", "p", i, f"echo {i}", (7, 8), -1.0 * i, "stop") for i in verdicts]
    executions = [Execution(f"p#{i}", "p", v, 0, {0: False, 1: True}.get(i)) for i, v in verdicts.items()]
    candidates.append(Candidate("q#0", "q", 0, "echo", (7,), -1.0, "stop"))
    executions.append(Execution("q#0", "q", Verdict.sandbox_error, None))
    made = make_pool("sft", [task, lost], candidates, executions, {"rm-1": {"p#0": 0.5, "p#1": 1.5}})
    (only,) = made.problems
    assert made.unjudged == 2
    assert tuple(only.completions) == ("echo 0", "echo 1")
    assert only.passed.tolist() == [False, True]
    assert only.mean_logprob.tolist() == [0.0, -0.5]
    assert only.examples_passed.tolist() == [False, True]
    assert only.scores["rm-1"].tolist() == [0.5, 1.5]
    assert only.greedy_passed is True
    with pytest.raises(KeyError, match="p#1"):
        make_pool("sft", [task], candidates[:4], executions, {"rm-1": {"p#0": 0.5}})


def test_a_pool_of_before_there_were_examples_is_read(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    task = Problem(id="p", task="t", language="sh", prompt="#", tests="", split="test", source="bank")
    write_records(tmp_path / "problems.parquet", [task], Problem)
    write_records(
        tmp_path / "candidates.parquet", [Candidate("p#0", "p", 0, "echo", (7,), -1.0, "stop")], Candidate
    )
    path = tmp_path / "executions.parquet"
    write_records(path, [Execution("p#0", "p", Verdict.passed, 0)], Execution)
    places = dict.fromkeys(("problems", "sft.candidates", "sft.executions"), tmp_path)
    new = load_pool(places, "sft", "test", {})
    pq.write_table(pq.read_table(path).drop_columns(["examples_passed"]), path)
    for pool in (new, load_pool(places, "sft", "test", {})):
        assert (pool.problems[0].examples_passed, pool.problems[0].passed.tolist()) == (None, [True])
    pq.write_table(pq.read_table(path).drop_columns(["verdict"]), path)
    with pytest.raises(DataError, match=r"executions\.parquet: it has no column verdict; expected"):
        load_pool(places, "sft", "test", {})


def test_broken_pools_are_refused() -> None:
    with pytest.raises(UsageError, match="pool sft"):
        Pool("sft", ())
    with pytest.raises(ValueError, match="unique"):
        pool(problem("a", "+"), problem("a", "-"))
    with pytest.raises(ValueError, match="same rankers"):
        pool(problem("a", "+", scores={"rm-1": [1]}), problem("b", "-"))
    with pytest.raises(ValueError, match="1 rm-1 for 2 completions"):
        problem("a", "+-", scores={"rm-1": [1]})
    with pytest.raises(ValueError, match="finite"):
        problem("a", "+-", scores={"rm-1": [1, math.nan]})


def test_a_report_of_real_size_takes_seconds() -> None:
    rng = np.random.default_rng(0)
    names = [f"rm-{r}{s}" for r in (1, 2) for s in ("", "+logprob")]

    def made(name: str) -> Pool:
        rows = ("".join(rng.choice(["+", "-"], 16)) for _ in range(200))
        problems = [
            problem(
                f"{i}",
                marks,
                scores={n: rng.normal(size=16).tolist() for n in names},
                language="py" if i % 2 else "sh",
            )
            for i, marks in enumerate(rows)
        ]
        return pool(*problems, name=name)

    pools = [made(name) for name in ("sft", "ppo-1", "ppo-2")]
    start = time.process_time()
    evaluate_pools(pools)
    assert time.process_time() - start < 10
