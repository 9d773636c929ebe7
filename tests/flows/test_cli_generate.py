"""Tests of `selftrain generate` and `selftrain best-of` with a tiny model."""

import json
from pathlib import Path
from typing import Any

import pytest

from flows.cli import main

PROMPT = "def add(n):  # n + 1\n"
SHORT = ("--n", "2", "--max-new-tokens", "4")


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rows_keep_their_fields_and_bad_ones_are_told(
    tmp_path: Path, generator: Path, capsys: pytest.CaptureFixture[str]
):
    given = [
        {"task": "a", "language": "py", "prompt": PROMPT, "tests": "assert add(1) == 2\n"},
        {"prompt": 5},
    ]
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in given) + "{broken\n")
    assert main(["generate", str(generator), str(source), "--out", str(out), *SHORT]) == 1
    [row] = rows_of(out)
    assert {name: row[name] for name in given[0]} == given[0]
    assert (len(row["completions"]), len(row["finish_reasons"])) == (2, 2)
    assert all(value < 0 for value in row["mean_logprobs"])
    said = capsys.readouterr().err.splitlines()
    assert said[0] == f"selftrain: {source}:2: `prompt`: expected a text"
    assert said[1].startswith(f"selftrain: {source}:3: broken JSON")
    assert said[-1] == "selftrain: 2 rows could not be used"
    # What it writes is what `evaluate` reads.
    code = main(
        ["evaluate", str(out), "--json", "--backend", "process", "--agreement", "0", "--bootstrap", "9"]
    )
    assert code == 0
    found = json.loads(capsys.readouterr().out)["overall"]
    assert (found["samples"], "logprob" in found, "greedy" in found) == (2, True, False)


def test_one_prompt_and_wrong_usage(tmp_path: Path, generator: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "p.txt").write_text(PROMPT)
    prompt = str(tmp_path / "p.txt")
    assert main(["generate", str(generator), "--prompt", prompt, *SHORT, "--seed", "3"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert main(["generate", str(generator), "--prompt", prompt, *SHORT, "--seed", "3"]) == 0
    assert json.loads(capsys.readouterr().out) == first
    assert first["prompt"] == PROMPT
    (tmp_path / "there").write_text("kept")
    for arguments, said in (
        ([], "expected either IN"),
        (["in.jsonl", "--prompt", prompt], "expected either IN"),
        (["--prompt", prompt, "--out", str(tmp_path / "there")], "exists; name another file"),
        (["nowhere.jsonl"], "nowhere.jsonl: cannot be read"),
        (["--prompt", prompt, "--temperature", "0"], "n=16: expected at least 1, and 1 at temperature 0"),
        (["--prompt", str(tmp_path)], "cannot be read as text"),
    ):
        assert main(["generate", str(generator), *arguments]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert said in line
    assert (tmp_path / "there").read_text() == "kept"


def test_best_of(tmp_path: Path, generator: Path, reranker: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "p.txt").write_text(PROMPT)
    command = [
        "best-of",
        str(generator),
        "--reranker",
        str(reranker),
        "--prompt",
        str(tmp_path / "p.txt"),
        *SHORT,
    ]
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    scores = [row["score"] for row in found["candidates"]]
    assert len(scores) == 2
    assert found["best"] == scores.index(max(scores))
    assert found["pick"] == found["candidates"][found["best"]]["text"]
    filtered = [*command, "--filter", "compile", "--language", "py", "--backend", "process"]
    assert main([*filtered, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    compiling = [row for row in found["candidates"] if row["verdict"] != "compile_error"]
    assert found["none_passed"] is (not compiling)
    allowed = compiling or found["candidates"]
    assert found["pick"] == max(allowed, key=lambda row: row["score"])["text"]
    assert main(command) == 0
    said = capsys.readouterr()
    assert said.err.startswith("selftrain: candidate ")
    assert main([*command, "--filter", "compile"]) == 2
    assert "say in which language" in capsys.readouterr().err
    assert (
        main(["best-of", "m", "--base-url", "http://127.0.0.1:9/v1", "--prompt", str(tmp_path / "p.txt")])
        == 2
    )
    assert "a served model has no reranker" in capsys.readouterr().err
