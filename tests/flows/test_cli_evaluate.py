"""Tests of `selftrain evaluate` on programs whose verdicts and figures are worked out by hand."""

import gzip
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.cli import main
from flows.cli_evaluate import scores_of, title_of
from selftrain.errors import UsageError
from selftrain.examine.completions import candidates_of
from selftrain.problems.completions import read_completions
from selftrain.rerank.picker import Picker
from selftrain.rerank.reranker import Ranking
from tests.command import ROOT, Finished

PROMPT = "def double(n):\n"
TESTS = "assert double(2) == 4\nassert double(5) == 10\n"
RIGHT, WRONG, WORSE = "    return 2 * n\n", "    return n + 2\n", "    return n\n"


def evaluated(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    """What `selftrain evaluate ARGUMENTS --json` prints."""
    code = main(["evaluate", *map(str, arguments), "--json", "--bootstrap", "50", "--backend", "process"])
    said = capsys.readouterr()
    assert code == 0, said.err
    return dict(json.loads(said.out))


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The line that `selftrain evaluate ARGUMENTS`, wrong usage, prints."""
    assert main(["evaluate", *map(str, arguments)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    return line


def solved(metrics: dict[str, Any]) -> dict[str, float]:
    """Way to pick -> share of problems, of those with one value."""
    ways = {
        way: found["value"] for way, found in metrics.items() if isinstance(found, dict) and "value" in found
    }
    return ways | {way: found["value"] for way, found in metrics["rankers"].items()}


def test_figures_of_judged_programs(capsys: pytest.CaptureFixture[str]):
    found = evaluated(capsys, ROOT / "docs" / "own-data" / "completions.jsonl", "--agreement", 0)
    assert solved(found["overall"]) == pytest.approx(
        {"random": 1 / 2, "logprob": 2 / 3, "majority": 1 / 3, "examples": 2 / 3, "oracle": 1.0}
    )
    # In sh the programs pass that print 2 * n and, for the one n of the tests, n + 2.
    assert solved(found["languages"]["sh"]) == {
        "random": 0.75,
        "logprob": 1.0,
        "majority": 1.0,
        "oracle": 1.0,
    }
    pass_at_2 = found["overall"]["best_of"]["oracle"]["2"]["value"]
    assert pass_at_2 == pytest.approx((5 / 6 + 1 / 2 + 1) / 3)


def test_a_folder_as_multipl_e_writes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rows = {
        "name": "HumanEval_0_double",
        "language": "py",
        "prompt": PROMPT,
        "tests": TESTS,
        "stop_tokens": ["\ndef"],
    }
    (tmp_path / "run").mkdir()
    with gzip.open(tmp_path / "run" / "HumanEval_0_double.json.gz", "wt") as file:
        json.dump(rows | {"completions": [WRONG, RIGHT + "\ndef more(", WRONG], "temperature": 0.2}, file)
    with gzip.open(tmp_path / "run" / "HumanEval_0_double.results.json.gz", "wt") as file:
        json.dump(rows | {"results": []}, file)
    found = evaluated(capsys, tmp_path)
    # The completion ends before its stop token, so it is right; the results file is no completions file.
    assert solved(found["overall"]) == pytest.approx(
        {"random": 1 / 3, "majority": 0.0, "agreement": 0.0, "oracle": 1.0}
    )


def test_a_reranker_and_the_greedy_completion(
    tmp_path: Path, reranker: Path, capsys: pytest.CaptureFixture[str]
):
    from selftrain import Reranker

    texts = [WRONG, RIGHT, WORSE]
    row = {
        "task": "double",
        "language": "py",
        "prompt": PROMPT,
        "tests": TESTS,
        "completions": texts,
        "greedy": RIGHT,
    }
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    found = evaluated(capsys, tmp_path / "rows.jsonl", "--reranker", reranker, "--agreement", 0)
    picked = Reranker.load(reranker).rank(PROMPT, texts).best
    assert solved(found["overall"]) == pytest.approx(
        {"random": 1 / 3, "greedy": 1.0, "majority": 0.0, "oracle": 1.0, "reranker": float(picked == 1)}
    )
    assert found["rerankers"] == {"reranker": str(reranker)}
    names = [row["name"] for row in found["comparisons"]]
    assert names == ["completions/reranker-random", "completions/reranker-majority"]


def test_a_reranker_reads_the_programs_in_their_language_and_may_be_unable_to_score_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A prompt whose looks tell no language; and a problem all of whose programs are empty."""
    asked: list[Any] = []

    class Ranker:
        def rank_many(self, problems: Any) -> list[Ranking]:
            asked.extend(problems)
            [(_, texts, _)] = problems
            return [Ranking(tuple(float(len(text)) if text.strip() else -math.inf for text in texts))]

    monkeypatch.setattr("selftrain.rerank.reranker.Reranker.load", lambda *_: Ranker())
    (tmp_path / "reranker").mkdir()
    (tmp_path / "reranker" / "config.json").write_text("{}")
    prompt = "# It doubles $1.\n"
    row = {"language": "sh", "prompt": prompt, "tests": "true\n"}
    rows = [
        row | {"task": "double", "completions": ["false\n", "echo 4\n", ""]},
        row | {"task": "none", "completions": ["", " "]},
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    written = read_completions([str(tmp_path / "rows.jsonl")])
    problems = [one.problem for one in written]
    found, _ = scores_of([str(tmp_path / "reranker")], problems, candidates_of(written, "completion"), {})
    assert asked == [(prompt, ["false\n", "echo 4\n", ""], "sh"), (prompt, ["", " "], "sh")]
    ids = [problem.id for problem in problems]
    assert found["reranker"] == {
        f"{ids[0]}#0": 6.0, f"{ids[0]}#1": 7.0, f"{ids[0]}#2": 5.0, f"{ids[1]}#0": -1.0, f"{ids[1]}#1": -1.0
    }  # fmt: skip


def test_a_run_picks_by_the_log_probabilities_of_the_rows(
    tmp_path: Path, picker: Picker, capsys: pytest.CaptureFixture[str]
):
    """The run's generator is not needed, and another run's pool has other log-probabilities than those of its generator."""
    row = {"task": "double", "language": "py", "prompt": PROMPT, "tests": TESTS}
    given = row | {"completions": [WRONG, RIGHT, WORSE], "mean_logprobs": [-3.0, -1.0, -2]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(given))
    found = evaluated(capsys, tmp_path / "rows.jsonl", "--reranker", "a-run", "--agreement", 0)
    assert solved(found["overall"])["reranker"] == 1.0

    written = read_completions([str(tmp_path / "rows.jsonl")])
    candidates = candidates_of(written, "completion")
    means = {row.id: row.logprob for row in candidates}
    problems = [one.problem for one in written]
    picker.run["stages"]["sft"] = {"stage": "sft", "key": "one"}
    scores, _ = scores_of(["a-run"], problems, candidates, means, "one")
    assert max(scores["reranker"], key=scores["reranker"].__getitem__).endswith("#1")
    del picker.run["stages"]["sft"]
    with pytest.raises(UsageError, match="no stage sft"):
        scores_of(["a-run"], problems, candidates, means, "one")


def test_answers_in_markdown(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    answer = f"Sure:\n```python\n{PROMPT}{RIGHT}```\n"
    rows = [
        {"task": "double", "language": "py", "prompt": PROMPT, "tests": TESTS, "completions": [text]}
        for text in (answer, RIGHT)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for style, share in (("chat", 1.0), ("completion", 0.5)):
        found = evaluated(capsys, tmp_path / "rows.jsonl", "--style", style, "--agreement", 0)
        assert (found["overall"]["samples"], found["overall"]["random"]["value"]) == (2, share)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"completions": []}, "rows.jsonl:1: field 'completions': List should have at least 1 item"),
        ({}, "rows.jsonl:1: field 'completions' is missing"),
        (
            {"completions": ["x"], "mean_logprobs": [-1.0, -2.0]},
            "rows.jsonl:1: 2 mean_logprobs for 1 completions",
        ),
        ({"completions": ["x"], "mean_logprobs": [0.1]}, "rows.jsonl:1: field 'mean_logprobs.0'"),
        ({"completions": ["x"], "language": "cobol"}, "cobol"),
        ({"completions": ["x"], "language": "swift"}, "swift"),
        ({"completions": ["x"], "tests": ""}, "expected either `tests` (a program) or `cases`"),
    ],
)
def test_a_wrong_row_is_told_by_line(
    tmp_path: Path, row: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
):
    given = {"task": "double", "language": "py", "prompt": PROMPT, "tests": TESTS} | row
    (tmp_path / "rows.jsonl").write_text(json.dumps(given))
    assert said in refused(capsys, tmp_path / "rows.jsonl")


def test_other_wrong_usage_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert "no problem file there" in refused(capsys, tmp_path / "nowhere.jsonl")
    assert "no completions there" in refused(capsys, tmp_path)
    for option, value, said in (
        ("--bootstrap", 0, "expected 1 to 100,000, got 0"),
        ("--bootstrap", 10**12, "expected 1 to 100,000, got 1000000000000"),
        ("--agreement", 10**6, "expected 0 to 1,000, got 1000000"),
        ("--workers", 10**9, "expected 1 to 4,096, got 1000000000"),
    ):
        assert f"{option}: {said}" in refused(capsys, tmp_path, option, str(value))
    (tmp_path / "p.txt").write_text(PROMPT)
    for command in (
        ["check-data", str(tmp_path / "p.txt")],
        ["best-of", "x", "--prompt", str(tmp_path / "p.txt")],
    ):
        assert main([*command, "--workers", "0"]) == 2
        assert "--workers: expected 1 to 4,096, got 0" in capsys.readouterr().err
    row = {"task": "a", "language": "py", "prompt": PROMPT, "tests": TESTS, "completions": [RIGHT]}
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, (row, row | {"prompt": "def f():\n"}))))
    assert "rows.jsonl:2: problem 'a.py' is there twice" in refused(capsys, tmp_path / "rows.jsonl")


def test_the_title_says_which_problems_and_how_many_candidates_they_have():
    problems = [
        SimpleNamespace(passed=[True] * size, language=name)
        for size, name in ((3, "sh"), (2, "py"), (4, "py"))
    ]
    assert title_of(SimpleNamespace(problems=problems), "validation problem") == (
        "3 validation problems (py, sh), 2 to 4 candidates each"
    )
    assert title_of(SimpleNamespace(problems=problems[:1]), "problem") == "1 problem (sh), 3 candidates each"


def test_a_pool_of_a_run_has_the_figures_of_its_report(
    smoke_run: Finished, capsys: pytest.CaptureFixture[str]
):
    bootstrap = smoke_run.report["config"]["evaluate"]["bootstrap"]
    for pool in ("sft", "ppo-1"):
        main(["evaluate", str(smoke_run.out), "--pool", pool, "--json", "--bootstrap", str(bootstrap)])
        found = json.loads(capsys.readouterr().out)
        assert solved(found["overall"]) == solved(smoke_run.report["pools"][pool]["overall"])
    assert "no stage sample-ppo-9-evaluation" in refused(capsys, smoke_run.out, "--pool", "ppo-9")
