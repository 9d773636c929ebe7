"""Tests of the data of the report's table of problems: merged duplicates, the size limit, and the file of all problems."""

from collections import Counter
from dataclasses import replace

import numpy as np

from sandbox.verdicts import Verdict
from selftrain.evaluation.pools import Pool, PoolProblem
from selftrain.report.browse import MAX_CHARACTERS, browse_data, problem_table, script_json
from selftrain.report.page import ReportInputs


def test_identical_programs_are_one_entry_with_every_way_that_picks_them(inputs: ReportInputs) -> None:
    problem = replace(
        inputs.pools[0].problems[0],
        completions=("a", "b", "a", "x" * (MAX_CHARACTERS + 7)),
        verdicts=(Verdict.passed, Verdict.timeout, Verdict.passed, Verdict.wrong_answer),
        logprob=np.array([-4.0, -2.0, -6.0, -8.0]),
        n_tokens=np.array([4, 4, 4, 4]),
        scores={"rm-1": np.array([0.0, 3.0, 0.0, 1.0]), "rm-1~shuffled": np.zeros(4)},
    )
    data = browse_data([Pool("sft", (problem,))], "rm-1")
    assert data["rankers"] == ["rm-1"]
    assert data["ways"] == ["rm-1", "logprob", "majority"]
    (entry,) = data["problems"]
    pool = entry["pools"]["sft"]
    assert (pool["n"], pool["passed"]) == (4, 2)
    assert [entry["texts"][at] for at in pool["text"]][:2] == ["a", "b"]
    assert [data["verdicts"][at] for at in pool["verdict"]] == ["passed", "timeout", "wrong_answer"]
    assert pool["count"] == [2, 1, 1]
    assert pool["logprob"] == [-1.0, -0.5, -2.0]
    assert pool["scores"] == [[0.0, 3.0, 1.0]]
    assert pool["picks"] == [1, 1, 0]  # rm-1 and logprob pick b, which fails; majority picks a, which passes
    assert entry["texts"][2].endswith("x\n[7 more characters]")


def test_problems_that_tell_most_come_first(inputs: ReportInputs) -> None:
    def made(
        id: str, passed: tuple[bool, ...], scores: tuple[float, ...], logprob: tuple[float, ...]
    ) -> PoolProblem:
        return replace(
            inputs.pools[0].problems[1],
            id=id,
            completions=("a", "b"),
            verdicts=tuple(Verdict.passed if right else Verdict.timeout for right in passed),
            logprob=np.array(logprob),
            n_tokens=np.array([1, 1]),
            scores={"rm-1": np.array(scores)},
        )

    gained = made("gained", (True, False), (1.0, 0.0), (-2.0, -1.0))
    lost = made("lost", (True, False), (0.0, 1.0), (-1.0, -2.0))
    missed = made("missed", (True, False), (0.0, 1.0), (-2.0, -1.0))
    easy = made("easy", (True, False), (1.0, 0.0), (-1.0, -2.0))
    none = made("none", (False, False), (1.0, 0.0), (-1.0, -2.0))
    pool = Pool("sft", (none, easy, missed, lost, gained))
    dull = {entry["id"]: entry["pools"]["sft"]["dull"] for entry in browse_data([pool], "rm-1")["problems"]}
    assert dull == {"gained": 0, "lost": 0, "missed": 1, "easy": 2, "none": 3}
    whole = browse_data([pool], "rm-1")
    room = sum(
        len(script_json(entry)) for entry in whole["problems"] if entry["id"] in ("gained", "lost", "missed")
    )
    kept = browse_data([pool], "rm-1", max_bytes=room + 10)
    assert ([entry["id"] for entry in kept["problems"]], kept["left_out"]) == (
        ["gained", "lost", "missed"],
        2,
    )


def test_what_does_not_fit_is_left_out_evenly_and_counted(inputs: ReportInputs) -> None:
    whole = browse_data(inputs.pools, inputs.chosen)
    assert (len(whole["problems"]), whole["left_out"]) == (24, 0)
    half = browse_data(inputs.pools, inputs.chosen, max_bytes=len(script_json(whole["problems"])) // 2)
    assert len(half["problems"]) + half["left_out"] == 24
    assert 8 <= len(half["problems"]) < 16
    by_language = Counter(entry["language"] for entry in half["problems"])
    assert abs(by_language["py"] - by_language["sh"]) <= 1
    assert len(script_json(half["problems"])) <= len(script_json(whole["problems"])) // 2 + 50


def test_every_problem_of_every_pool_is_in_the_table(inputs: ReportInputs) -> None:
    problem = replace(
        inputs.pools[0].problems[0],
        id='odd, "id"',
        language="py",
        completions=("a", "b", "a"),
        verdicts=(Verdict.passed, Verdict.timeout, Verdict.passed),
        logprob=np.array([-4.0, -2.0, -6.0]),
        n_tokens=np.array([1, 1, 1]),
        examples_passed=None,
        scores={"rm-1": np.array([0.0, 3.0, 0.0]), "rm-1~shuffled": np.zeros(3)},
    )
    other = replace(problem, verdicts=(Verdict.wrong_answer,) * 3)
    table = problem_table([Pool("sft", (problem,)), Pool("ppo-1", (other,))], "rm-1", rival="majority")
    assert table.splitlines() == [
        "pool,problem,language,candidates,passing,rm-1,majority,logprob",
        'sft,"odd, ""id""",py,3,2,timeout,passed,timeout',
        'ppo-1,"odd, ""id""",py,3,0,wrong_answer,wrong_answer,wrong_answer',
    ]
    whole = problem_table(inputs.pools, inputs.chosen).splitlines()
    assert len(whole) == 1 + sum(len(pool.problems) for pool in inputs.pools)
