"""Tests of a study's table against numbers worked out by hand: pairing by problem and seed, strata, roles of rankers, files."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from sandbox.verdicts import Verdict
from selftrain.evaluation.pools import Pool, PoolProblem
from selftrain.evaluation.study import Resamples, Row, Side, Table, study_table, with_roles
from selftrain.report.study import columns, markdown, write_study


def problem(name: str, passed: str, prompt: str = "", **scores: list[float]) -> PoolProblem:
    """`passed`: one character a candidate, + for a passing and - for a failing one. All candidates are equally likely."""
    n = len(passed)
    return PoolProblem(
        id=f"{name}.py",
        task=name,
        language="py",
        prompt=prompt or f"# {name}\n",
        completions=tuple(f"program {i}" for i in range(n)),
        verdicts=tuple(Verdict.passed if mark == "+" else Verdict.wrong_answer for mark in passed),
        logprob=np.zeros(n),
        n_tokens=np.ones(n, int),
        examples_passed=None,
        scores={ranker.replace("_", "-"): np.array(values, float) for ranker, values in scores.items()},
        greedy_passed=True,
    )


def pool(*problems: PoolProblem) -> dict[str, Pool]:
    return {"sft": Pool("sft", problems)}


def find(table: Table, variant: str, ranker: str, minus: tuple[str, str] | None = None) -> Row:
    (row,) = [
        row
        for row in table["rows"]
        if (row["variant"], row["ranker"], row["minus"]) == (variant, ranker, minus)
    ]
    return row


def made(swap: bool = False, differences: Sequence[tuple[Side, Side]] = ()) -> Table:
    """Two variants, two seeds: `a` picks right on 1 of 2 problems and on 1 of 1, `b` on 2 of 2 and on 0 of 1."""
    right, wrong = [1.0, 0.0], [0.0, 1.0]
    a = {
        1: pool(problem("p", "+-", rm_1=right), problem("q", "+-", rm_1=wrong)),
        2: pool(problem("r", "+-", rm_1=right)),
    }
    b = {
        1: pool(problem("q", "+-", rm_1=right), problem("p", "+-", rm_1=right)),  # in another order
        2: pool(problem("r", "+-", rm_1=wrong)),
    }
    return study_table(
        {"a": a, "b": b}, "b" if swap else "a", "validation", resamples=200, differences=differences
    )


def test_shares_and_differences_are_over_all_seeds() -> None:
    table = made()
    assert find(table, "a", "rm-1")["value"] == pytest.approx(2 / 3)
    assert find(table, "a", "rm-1")["by_seed"] == {"1": 0.5, "2": 1.0}
    assert find(table, "a", "random")["value"] == pytest.approx(1 / 2)
    assert find(table, "b", "rm-1")["value"] == pytest.approx(2 / 3)
    over = find(table, "b", "rm-1", ("a", "rm-1"))  # by problem: 0, +1 and -1
    assert (over["value"], over["problems"]) == (pytest.approx(0), 3)
    assert over["by_seed"] == {"1": 0.5, "2": -1.0}
    assert find(made(swap=True), "a", "rm-1", ("b", "rm-1"))["by_seed"] == {"1": -0.5, "2": 1.0}
    within = find(table, "a", "rm-1", ("a", "random"))
    assert within["value"] == pytest.approx(1 / 6)
    assert not any(row["minus"] == ("a", row["ranker"]) and row["variant"] == "a" for row in table["rows"])


def test_tasks_are_drawn_within_their_seed() -> None:
    # One problem in seed 2: it is in every resample once, so its seed cannot be drawn twice or never.
    drawn = Resamples(
        {"a": {1: pool(problem("p", "+"), problem("q", "-")), 2: pool(problem("r", "+"))}}, 500, 0
    )
    weights = drawn.weights([problem("p", "+"), problem("q", "-"), problem("r", "+")])
    assert weights.shape == (501, 3)
    assert (weights[:, 2] == 1).all()
    assert (weights[:, :2].sum(axis=1) == 2).all()
    assert weights[1:, 0].std() > 0.5  # 0, 1 or 2 times: the standard deviation is 0.71


def test_a_problem_that_seeds_share_is_drawn_once_for_all_of_them() -> None:
    both = pool(problem("p", "+"), problem("q", "-"))
    drawn = Resamples({"a": {1: both, 2: both}}, 100, 0)
    first, second = problem("p", "+"), problem("p", "-")
    weights = drawn.weights([first, second])
    assert (weights[:, 0] == weights[:, 1]).all()
    # Of one name but with another prompt it is another problem, as the bank's are in another seed.
    drawn = Resamples(
        {"a": {1: both, 2: pool(problem("p", "+", "# other\n"), problem("q", "-", "# other\n"))}}, 100, 0
    )
    weights = drawn.weights([problem("p", "+"), problem("p", "+", "# other\n")])
    assert (weights[:, 0] != weights[:, 1]).any()


def test_variants_are_paired_over_the_problems_that_both_have() -> None:
    a = {1: pool(problem("p", "+-", rm_1=[1, 0]), problem("q", "+-", rm_1=[0, 1]))}
    b = {
        1: pool(problem("p", "+-", rm_1=[0, 1]), problem("s", "+-", rm_1=[1, 0])),
        2: pool(problem("t", "+", rm_1=[1])),
    }
    table = study_table({"a": a, "b": b}, "a", "test", resamples=50)
    over = find(table, "b", "rm-1", ("a", "rm-1"))
    assert (over["value"], over["low"], over["high"], over["problems"]) == (-1, -1, -1, 1)
    other = {1: pool(problem("p", "+-", "# other\n", rm_1=[1, 0]))}
    alone = study_table({"a": a, "c": other}, "a", "test", resamples=50)
    assert not [
        row for row in alone["rows"] if row["variant"] == "c" and row["minus"] == ("a", row["ranker"])
    ]


def test_any_two_rankers_of_two_variants_can_be_compared() -> None:
    asked = [(("b", "rm-1"), ("a", "random")), (("a", "rm-1"), ("b", "nobody")), (("a", "x"), ("c", "rm-1"))]
    table = made(differences=asked)
    over = find(table, "b", "rm-1", ("a", "random"))  # by problem: 1, 1 and 0, less 1/2 each
    assert (over["value"], over["problems"]) == (pytest.approx(1 / 6), 3)
    assert over["by_seed"] == {"1": 0.5, "2": -0.5}
    assert len(table["rows"]) == len(made()["rows"]) + 1, "a ranker or variant that is not there has no row"
    text = markdown(table, "mine", {})
    assert "### Further differences" in text
    assert "| b/rm-1 | a/random | 3 | +0.167 [" in text
    assert "Further" not in markdown(made(), "mine", {})


def test_rankers_have_roles_that_do_not_depend_on_the_number_of_rounds() -> None:
    scores = {
        "rm-1": [1, 0],
        "rm-10": [2, 0],
        "rm-10+logprob": [3, 0],
        "rm-10~shuffled": [4, 0],
        "rm-2": [5, 0],
    }
    found = with_roles(pool(problem("p", "+-", **{name: list(map(float, row)) for name, row in scores.items()}))["sft"], "rm-10+logprob")  # fmt: skip
    named = {name: values[0] for name, values in found.problems[0].scores.items()}
    assert named == {name: row[0] for name, row in scores.items()} | {
        "chosen": 3, "reranker": 2, "reranker+logprob": 3, "reranker~shuffled": 4,
    }  # fmt: skip


def test_the_files_of_a_study_say_their_split_and_hold_all_rows(tmp_path: Path) -> None:
    table = made()
    names = {path.name for path in write_study(table, "mine", tmp_path, {"b-seed-3": "it failed"})}
    assert names == {"validation.md", "validation.csv", "validation.json", "validation-sft.svg",
                     "validation-sft-differences.svg"}  # fmt: skip
    text = (tmp_path / "validation.md").read_text()
    assert "Split: **validation**" in text
    assert "Not in the table: b-seed-3 (it failed)." in text
    assert "Split: **test**" in markdown({**table, "split": "test"}, "mine", {})
    rows = list(csv.DictReader((tmp_path / "validation.csv").open()))
    assert {row["split"] for row in rows} == {"validation"}
    assert (
        len(rows) == len(table["rows"]) == len(json.loads((tmp_path / "validation.json").read_text())["rows"])
    )
    (over,) = [
        row for row in rows if (row["variant"], row["ranker"], row["minus_variant"]) == ("b", "rm-1", "a")
    ]
    assert (over["problems"], over["by_seed"]) == ("3", "1:0.5 2:-1.0")
    assert (tmp_path / "validation-sft.svg").read_text().startswith("<svg ")


def test_the_table_shows_reward_models_of_others_after_the_baselines() -> None:
    row = made()["rows"][0]
    names = (
        "chosen",
        "rm-1",
        "other",
        "oracle",
        "other+logprob",
        "random",
        "agreement",
        "rm-1~shuffled",
        "reranker",
    )
    found = columns([{**row, "ranker": name} for name in names])
    assert found == ["random", "agreement", "other", "reranker", "chosen", "oracle"]
