"""Tests of `selftrain inspect` against the records of a finished run."""

import json
from typing import Any

import pytest

from flows.cli import main
from sandbox.verdicts import Verdict
from selftrain.evaluation.scores import read_scores
from selftrain.examine.history import History
from selftrain.records import Candidate, Execution, Pair, Problem, read_records
from tests.command import Finished


def told(capsys: pytest.CaptureFixture[str], run: Finished, id: str) -> dict[str, Any]:
    assert main(["inspect", str(run.out), id, "--json"]) == 0
    return dict(json.loads(capsys.readouterr().out))


def refused(capsys: pytest.CaptureFixture[str], run: Finished, id: str) -> str:
    assert main(["inspect", str(run.out), id]) == 2
    [line] = capsys.readouterr().err.splitlines()
    return line


def test_a_candidate_of_the_evaluation(smoke_run: Finished, capsys: pytest.CaptureFixture[str]):
    rows = read_records(smoke_run.folder("sample-ppo-1-evaluation") / "candidates.parquet", Candidate)
    wanted = next(row for row in rows if row.sample == 1)
    found = told(capsys, smoke_run, f"ppo-1/{wanted.id}")
    assert (found["pool"], found["candidate"]["completion"]) == ("ppo-1", wanted.completion)
    assert found["policy"].split("/")[1] == smoke_run.stages["ppo-1"]["key"]
    assert found["mean_logprob"] == pytest.approx(wanted.logprob / len(wanted.token_ids))
    executions = read_records(smoke_run.folder("execute-ppo-1-evaluation") / "executions.parquet", Execution)
    verdict = next(row.verdict for row in executions if row.candidate_id == wanted.id)
    assert found["execution"]["verdict"] == verdict
    scores = read_scores(smoke_run.folder("evaluate"), "ppo-1")["rm-2"]
    own = [scores[row.id] for row in rows if row.problem_id == wanted.problem_id and row.sample >= 0]
    place = 1 + sum(score > scores[wanted.id] for score in own)
    assert found["scores"]["rm-2"] == [pytest.approx(scores[wanted.id]), place]
    assert ("rm-2" in found["picked_by"]) is (place == 1)
    main(["inspect", str(smoke_run.out), f"ppo-1/{wanted.id}"])
    said = capsys.readouterr().out
    assert said.startswith(f"ppo-1/{wanted.id}\n")
    assert f"by rm-2, place {place} of {len(own)}" in said


def test_a_program_of_a_pair(smoke_run: Finished, capsys: pytest.CaptureFixture[str]):
    pair = read_records(smoke_run.folder("mine-2") / "pairs.parquet", Pair)[0]
    for id, role, other in (
        (pair.chosen_id, "chosen", pair.rejected_id),
        (pair.rejected_id, "rejected", pair.chosen_id),
    ):
        found = told(capsys, smoke_run, id)
        assert [
            row
            for row in found["pairs"]
            if (row["role"], row["other"], row["kind"]) == (role, other, pair.kind)
        ]
        # No way picks among programs of the split rl; the rerankers score it now.
        assert found["picked_by"] is None
        assert list(found["scores"]) == ["rm-1", "rm-2"]


def test_prefixes_and_unknown_ids(smoke_run: Finished, capsys: pytest.CaptureFixture[str]):
    rows = read_records(smoke_run.folder("sample-sft-evaluation") / "candidates.parquet", Candidate)
    id = rows[0].id
    assert told(capsys, smoke_run, id)["candidate"]["id"] == id
    problem = rows[0].problem_id
    assert "candidates begin with this" in refused(capsys, smoke_run, f"{problem}#")
    assert f"such as {problem}#" in refused(capsys, smoke_run, f"sft/{problem[1:]}#")
    assert "pools are ppo-1, ppo-2, sft" in refused(capsys, smoke_run, "zzz")


def test_a_hostile_program_cannot_steer_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    problem = Problem("p", "task", "py", "def f():\n", "assert f()\n", "rl", "bank")
    hostile = "    print('\x1b[2J')\n"
    candidate = Candidate("p#0", "p", 0, hostile, (1, 2), -3.0, "stop")
    ran = Execution("p#0", "p", Verdict.wrong_answer, 1, output="\x1b]0;title\x07\n")
    found = History(candidate, problem, "sft", "sft/key", 0.8, (), ran, {}, 0, (), None)
    monkeypatch.setattr("selftrain.store.runfile.find_run", lambda run: run)
    monkeypatch.setattr("selftrain.store.runfile.read_run", lambda run: {})
    monkeypatch.setattr("selftrain.examine.history.history", lambda record, wanted: found)
    assert main(["inspect", "run", "p#0"]) == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert "  |     print('<U+001B>[2J')\n" in said
    assert "  > <U+001B>]0;title<U+0007>\n" in said
