"""Tests of where a candidate's history looks: pools of further samples, unfinished runs, ids."""

import json
from pathlib import Path
from typing import Any

import pytest

from sandbox.verdicts import Verdict
from selftrain.errors import UsageError
from selftrain.examine import history as module
from selftrain.examine.history import history
from selftrain.records import Candidate, Execution, Problem, write_records


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The record of a run whose SFT policy sampled twice for mining, the second time at another temperature."""

    def folder(_: Any, stage: str) -> Path:
        return tmp_path / stage

    monkeypatch.setattr(module, "stage_folder", folder)
    problem = Problem("p", "p", "py", "def f():\n", "assert f()\n", "rl", "bank")
    for stage, text in (("sample-sft-rl", "    return 1\n"), ("sample-sft-2-rl", "    return 2\n")):
        (tmp_path / stage).mkdir()
        rows = [Candidate(f"p#{at}", "p", at, text, (1,), -1.0, "stop") for at in range(2)]
        write_records(tmp_path / stage / "candidates.parquet", rows, Candidate)
    (tmp_path / "prepare").mkdir()
    write_records(tmp_path / "prepare" / "problems.parquet", [problem], Problem)
    config = {"sample": {"temperature": 0.8}, "mine": {"resample_temperature": 1.3}}
    names = {"prepare": "prepare", "sft": "sft", "sample-sft-rl": "sample", "sample-sft-2-rl": "sample"}
    stages = {name: {"stage": stage, "key": "abc"} for name, stage in names.items()}
    return {"name": "run", "finished": True, "config": config, "stages": stages}


def test_a_further_sample_is_of_the_sft_policy_at_its_own_temperature(record: dict[str, Any]) -> None:
    first, again = history(record, "sft/p#1"), history(record, "sft-2/p#1")
    assert (first.candidate.completion, again.candidate.completion) == ("    return 1\n", "    return 2\n")
    assert (first.pool, first.policy, first.temperature) == ("sft", "sft/abc", 0.8)
    assert (again.pool, again.policy, again.temperature) == ("sft-2", "sft/abc", 1.3)
    assert (first.also_in, again.also_in) == (("sft-2",), ("sft",))
    record["config"]["mine"]["resample_temperature"] = None
    assert history(record, "sft-2/p#1").temperature == 0.8


def test_a_pool_is_meant_by_its_whole_name(record: dict[str, Any], tmp_path: Path) -> None:
    del record["stages"]["sample-sft-rl"]
    record["stages"]["sample-sft-evaluation"] = {"stage": "sample", "key": "abc"}
    folder = (tmp_path / "sample-sft-rl").rename(tmp_path / "sample-sft-evaluation")
    row = Candidate("q#0", "q", 0, "", (1,), -1.0, "stop")
    write_records(folder / "candidates.parquet", [row], Candidate)
    with pytest.raises(UsageError, match="no candidate of the run in pool sft;"):
        history(record, "sft/p#1")


def test_places_and_picks_of_an_evaluated_candidate(record: dict[str, Any], tmp_path: Path) -> None:
    """The prompt shows no examples, so no way picks by them."""
    folders = {
        name: tmp_path / name for name in ("sample-sft-evaluation", "execute-sft-evaluation", "evaluate")
    }
    for name, folder in folders.items():
        folder.mkdir()
        record["stages"][name] = {"stage": name.partition("-")[0], "key": "abc"}
    rows = [Candidate(f"p#{at}", "p", at, f"    return {at}\n", (1,), -1.0 - at, "stop") for at in range(2)]
    write_records(folders["sample-sft-evaluation"] / "candidates.parquet", rows, Candidate)
    ran = [Execution(row.id, "p", Verdict.wrong_answer, 1) for row in rows]
    write_records(folders["execute-sft-evaluation"] / "executions.parquet", ran, Execution)
    scores = {"sft": {"rm-1": {"p#0": 0.5, "p#1": 1.5}, "rm-1~shuffled": {"p#0": 9.0}}}
    (folders["evaluate"] / "scores.json").write_text(json.dumps(scores))
    (folders["evaluate"] / "evaluation.json").write_text(json.dumps({"logprob_weights": {"rm-1": 2.0}}))
    del record["stages"]["sample-sft-rl"]
    first, second = history(record, "sft/p#0"), history(record, "sft/p#1")
    # With the log-probability: 0.5 - 2 x 1 and 1.5 - 2 x 2.
    assert first.scores == {"rm-1": (0.5, 2), "rm-1+logprob": (-1.5, 1)}
    assert second.scores == {"rm-1": (1.5, 1), "rm-1+logprob": (-2.5, 2)}
    assert (first.of, second.of) == (2, 2)
    assert set(first.picked_by or ()) == {"logprob", "logprob_sum", "majority", "rm-1+logprob"}
    assert second.picked_by == ("rm-1",)
