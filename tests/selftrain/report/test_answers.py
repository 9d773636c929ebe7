"""Tests of the answers at the top of the report, on pools whose differences are known."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sandbox.verdicts import Verdict
from selftrain.champion.promotion import verdict
from selftrain.evaluation.comparisons import best_untrained, evaluate_pools, headline
from selftrain.evaluation.pools import Pool
from selftrain.report.answers import Answer, answers, explained
from selftrain.report.page import ReportInputs
from selftrain.report.terminal import summary_table
from selftrain.rerank.picker import Picker


def pool_of(inputs: ReportInputs, wins: dict[str, int], size: int = 40) -> Pool:
    """Problems with a right and a wrong program. `wins`: way -> number of problems that it solves; the log-probability of the
    likelier program is that of `logprob`."""
    start = inputs.pools[0].problems[0]

    def problem(at: int):
        def first(way: str) -> np.ndarray:
            return np.array([1.0, 0.0]) if at < wins[way] else np.array([0.0, 1.0])

        return replace(
            start,
            id=f"p{at}",
            task=f"p{at}",
            completions=("right", "wrong"),
            verdicts=(Verdict.passed, Verdict.wrong_answer),
            logprob=first("logprob") - 2,
            n_tokens=np.array([1, 1]),
            scores={way: first(way) for way in ("rm-1", "rm-2")},
            greedy_passed=False,
        )

    return Pool("sft", tuple(problem(at) for at in range(size)))


def answered(inputs: ReportInputs, wins: dict[str, int], size: int = 40) -> tuple[str, list[Answer]]:
    """The best way without training, and the answers for rm-2, on `pool_of` these."""
    pool = pool_of(inputs, wins, size)
    evaluation = evaluate_pools([pool], resamples=200)
    found = {row["name"]: row for row in evaluation["comparisons"]}
    metrics = evaluation["pools"]["sft"]["overall"]
    return best_untrained(metrics), answers(pool, metrics, "rm-2", found)


def test_a_clear_gain_is_told_with_its_numbers(inputs: ReportInputs) -> None:
    rival, told = answered(inputs, {"logprob": 24, "rm-1": 30, "rm-2": 38})
    assert rival == "logprob"  # 60 %, a random pick 50 %
    better, much, sure, last = told
    assert (better.said, better.tone) == ("Yes", "gain")
    assert (
        "Reranker 2 picks a right program on 95.0\N{NO-BREAK SPACE}% of the 40 test problems" in better.text
    )
    assert "log-probability, does on 60.0\N{NO-BREAK SPACE}%" in better.text
    assert much.said == "+35.0\N{NO-BREAK SPACE}points"
    assert "Over a random pick: +45.0\N{NO-BREAK SPACE}points" in much.text
    assert "it gains 90.0\N{NO-BREAK SPACE}%" in much.text  # (95 - 50) / (100 - 50)
    assert sure.said == "Yes, at 95 %"
    assert (last.question, last.said) == ("Did round 2 help?", "Yes")
    assert "reranker 2 against reranker 1: +20.0\N{NO-BREAK SPACE}points" in last.text


def test_a_gain_on_a_handful_of_tasks_is_not_called_one(inputs: ReportInputs) -> None:
    """All five go one way, so the interval of the difference is [1, 1]; chance alone does that in 6 % of the cases."""
    _, told = answered(inputs, {"logprob": 0, "rm-1": 0, "rm-2": 5}, size=5)
    assert [answer.tone for answer in told] == ["unsure"] * 4
    assert [told[at].said for at in (0, 2, 3)] == ["Not shown", "No", "Not shown"]
    assert "The test split has 5 of the at least 6 tasks" in told[2].text
    _, told = answered(inputs, {"logprob": 0, "rm-1": 0, "rm-2": 6}, size=6)
    assert [told[at].said for at in (0, 2, 3)] == ["Yes", "Yes, at 95 %", "Yes"]


@pytest.mark.parametrize(("size", "few"), [(5, True), (6, False)])
def test_too_few_tasks_are_said_wherever_a_gain_is(inputs: ReportInputs, size: int, few: bool) -> None:
    """The page, the end of a run on the terminal, `rank` and `promote`."""
    wins = {"logprob": 0, "rm-1": 0, "rm-2": size}
    _, told = answered(inputs, wins, size)
    pool = pool_of(inputs, wins, size)
    evaluation = evaluate_pools([pool], resamples=200)
    said = "The test split has 5 of the at least 6 tasks with which a difference can be significant"
    found = headline(pool, "rm-2", evaluation)
    report = {"pools": evaluation["pools"], "headline": {"rm-2": found}, "chosen": "rm-2", "comparisons": [],
              "seconds": {"total": None}}  # fmt: skip
    reranker: Any = None
    where = {
        "page": told[0].text,
        "terminal": summary_table(report),
        "rank": Picker({}, reranker, "rm-2", {"evaluation": evaluation}, headline=found).solved,
        "rank, of a champion": Picker({}, reranker, "rm-2", {"evaluation": evaluation}).solved,
        "promotion": f"T{verdict(None, 0, tasks=size)[1][1:]}",
    }
    assert {name: said in text for name, text in where.items()} == dict.fromkeys(where, few)


def test_what_chance_can_explain_and_what_is_worse_is_not_called_a_gain(inputs: ReportInputs) -> None:
    _, told = answered(inputs, {"logprob": 24, "rm-1": 25, "rm-2": 25})
    assert [answer.said for answer in told] == [
        "Not shown",
        "+2.5\N{NO-BREAK SPACE}points",
        "No",
        "Not shown",
    ]
    _, told = answered(inputs, {"logprob": 30, "rm-1": 30, "rm-2": 10})
    assert [answer.tone for answer in told] == ["loss", "loss", "gain", "loss"]
    assert told[0].said == "No, it is worse"


def test_the_best_way_without_training_may_be_one_that_the_comparisons_lack(inputs: ReportInputs) -> None:
    rival, told = answered(inputs, {"logprob": 0, "rm-1": 30, "rm-2": 38})
    assert rival == "random"  # 50 %; log-probability, its sum and majority pick wrong
    assert "Over a random pick" in told[1].text
    assert told[1].text.count("Over") == 1


def test_every_way_has_a_name() -> None:
    assert explained("rm-2+logprob")[0] == "reranker 2 with log-probability"
    assert explained("rm-1+agreement")[0] == "reranker 1 with agreement"
    assert explained("skywork") == ("skywork", "The candidate with the highest score of this reward model.")
