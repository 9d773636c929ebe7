"""Tests of the data of the report's table of problems: merged duplicates and the size limit."""

from collections import Counter
from dataclasses import replace

import numpy as np

from sandbox.verdicts import Verdict
from selftrain.evaluation.pools import Pool
from selftrain.report import ReportInputs
from selftrain.report.browse import MAX_CHARACTERS, browse_data, script_json


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
    (entry,) = data["problems"]
    pool = entry["pools"]["sft"]
    assert (pool["n"], pool["passed"]) == (4, 2)
    assert pool["picks"] == {"logprob": False, "majority": True, "rm-1": False}
    assert pool["candidates"][:2] == [
        {
            "text": "a",
            "verdict": "passed",
            "count": 2,
            "logprob": -1.0,
            "scores": [0.0],
            "picked_by": ["majority"],
        },
        {
            "text": "b",
            "verdict": "timeout",
            "count": 1,
            "logprob": -0.5,
            "scores": [3.0],
            "picked_by": ["logprob", "rm-1"],
        },
    ]
    assert pool["candidates"][2]["text"].endswith("x\n[7 more characters]")


def test_what_does_not_fit_is_left_out_evenly_and_counted(inputs: ReportInputs) -> None:
    whole = browse_data(inputs.pools, inputs.chosen)
    assert (len(whole["problems"]), whole["left_out"]) == (24, 0)
    half = browse_data(inputs.pools, inputs.chosen, max_bytes=len(script_json(whole["problems"])) // 2)
    assert len(half["problems"]) + half["left_out"] == 24
    assert 8 <= len(half["problems"]) < 16
    by_language = Counter(entry["language"] for entry in half["problems"])
    assert abs(by_language["py"] - by_language["sh"]) <= 1
    assert len(script_json(half["problems"])) <= len(script_json(whole["problems"])) // 2 + 50
