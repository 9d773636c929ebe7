"""Tests of `selftrain generate` and `selftrain best-of` with a tiny model."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from flows.cli import main
from selftrain.generate import Sampled
from selftrain.generate.generator import Generator
from tests.command import ROOT

PROMPT = "def add(n):  # n + 1\n"
SHORT = ("--n", "2", "--max-new-tokens", "4")


def same(path: Path, other: bytes) -> bool:
    """Whether a file's rows are `other`, but for the rounding of log-probabilities: that depends on what is sampled together."""
    ours, theirs = (sorted(text.splitlines()) for text in (path.read_bytes(), other))
    for one, two in zip(map(json.loads, ours), map(json.loads, theirs), strict=True):
        assert one.pop("mean_logprobs") == pytest.approx(two.pop("mean_logprobs"), abs=1e-5)
        assert one == two
    return True


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rows_keep_their_fields_and_bad_ones_are_told(
    tmp_path: Path, generator: Path, capsys: pytest.CaptureFixture[str]
):
    given = [
        {"task": "a", "language": "py", "prompt": PROMPT, "tests": "assert add(1) == 2\n"},
        {"prompt": 5},
        {"prompt": "x" * 5000},
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
    assert said[1].startswith(f"selftrain: {source}:3: the prompt has ")
    assert said[2].startswith(f"selftrain: {source}:4: broken JSON")
    assert said[-1] == "selftrain: 3 rows could not be used"
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
        (["--prompt", prompt, "--out", str(tmp_path / "there")], "there exists, and only with a file"),
        (["-", "--out", str(tmp_path / "there")], "there exists, and only with a file"),
        ([str(tmp_path / "p.txt"), "--out", str(tmp_path / "there")], "not the result of this command"),
        (["--prompt", prompt, "--chat"], "chat is of a model on a server: give base_url too"),
        (["--prompt", prompt, "--tokenizer", "t"], "tokenizer is of a model on a server"),
        (["--prompt", prompt, "--compute-type", "int8"], "int8 is for engine ctranslate2, not for hf"),
        (
            ["--prompt", prompt, "--base-url", "http://127.0.0.1:1/v1", "--compute-type", "bfloat16"],
            "compute_type is of a local model",
        ),
        (["--prompt", prompt, "--temperature", "0"], "n=16: expected at least 1, and 1 at temperature 0"),
        (["--prompt", str(tmp_path)], "cannot be read as text"),
    ):
        assert main(["generate", str(generator), *arguments]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert said in line
    assert (tmp_path / "there").read_text() == "kept"


def test_it_goes_on_where_it_was_cut_with_the_same_rows_generator_and_settings(
    tmp_path: Path, generator: Path, reranker: Path, capsys: pytest.CaptureFixture[str]
):
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    rows = [
        "{broken",
        *(json.dumps({"id": at, "line": "kept", "prompt": PROMPT}) for at in range(3)),
        "",
        '{"prompt": 5}',
    ]
    source.write_text("\n".join(rows))
    command = ["generate", str(generator), str(source), "--out", str(out), *SHORT]
    assert main(command) == 1
    whole = out.read_bytes()
    assert [(row["id"], row["line"], row["generated"]["line"]) for row in rows_of(out)] == [
        (0, "kept", 2), (1, "kept", 3), (2, "kept", 4)
    ]  # fmt: skip
    for kept in (0, 1, whole.index(b"\n") + 1, len(whole) - 1, len(whole)):
        out.write_bytes(whole[:kept])
        capsys.readouterr()
        assert main(command) == 1
        assert same(out, whole)
        assert capsys.readouterr().err.endswith("selftrain: 2 rows could not be used\n")
    for changed, said in (
        ([*command, "--n", "3"], "was made with n 2, and this is n 3"),
        (
            [*command, "--compute-type", "bfloat16"],
            "with compute_type float32, and this is compute_type bfloat16",
        ),
        ([*command, "--seed", "1"], "was made with seed 0, and this is seed 1"),
        ([*command, "--language", "sh"], "was made with language None, and this is language sh"),
        (["generate", str(other(tmp_path, generator)), *command[2:]], "was made with model"),
        ([*command[:2], str(out), *command[3:]], "are one file"),
    ):
        assert main(changed) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert said in line
    source.write_text(source.read_text().replace('"id": 2', '"id": 9'))
    assert main(command) == 2
    assert "answers other lines" in capsys.readouterr().err
    assert same(out, whole)


def test_rows_that_failed_are_tried_again_when_they_are_corrected(
    tmp_path: Path, generator: Path, capsys: pytest.CaptureFixture[str]
):
    """Wherever they are, and once only; what is there stays as it is."""
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    right = [json.dumps({"id": at, "prompt": PROMPT}) for at in range(6)]
    command = ["generate", str(generator), str(source), "--out", str(out), *SHORT]
    before = b""
    for wrong, lines, bad in (
        ({0, 2, 4, 5}, [2, 4], 4),
        ({0, 4}, [2, 4, 3, 6], 2),
        ({0, 4}, [2, 4, 3, 6], 2),
        ({0}, [2, 4, 3, 6, 5], 1),
        (set(), [2, 4, 3, 6, 5, 1], 0),
        (set(), [2, 4, 3, 6, 5, 1], 0),
    ):
        source.write_text("".join("{broken\n" if at in wrong else f"{row}\n" for at, row in enumerate(right)))
        assert main(command) == (1 if bad else 0)
        said = capsys.readouterr().err
        assert said.count("broken JSON") == bad
        assert f"selftrain: {bad} row" in said or not bad
        assert out.read_bytes().startswith(before)
        before = out.read_bytes()
        assert [(row["id"] + 1, row["generated"]["line"]) for row in rows_of(out)] == [(n, n) for n in lines]
    again = tmp_path / "again.jsonl"
    assert main([*command[: -len(SHORT) - 1], str(again), *SHORT]) == 0
    assert same(again, before)
    source.write_text("".join(f"{row}\n" for row in right).replace('"id": 0', '"id": 9'))
    assert main(command) == 2
    assert "line 1 for one" in capsys.readouterr().err


def test_it_goes_on_with_the_same_server_and_tokenizer_only(
    tmp_path: Path, generator: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Two servers may have different models of one name."""
    folders = {"same": shutil.copytree(generator, tmp_path / "same"), "other": other(tmp_path, generator)}

    def load(place: str, *, base_url: str, tokenizer: str | None, **_: Any) -> Generator:
        draw = lambda problems, n, settings, seed: [[Sampled(base_url, None, 1, "stop")] * n]  # noqa: E731
        return Generator(draw, tokenizer=folders[tokenizer] if tokenizer else None)

    monkeypatch.setattr(Generator, "load", load)
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(json.dumps({"prompt": PROMPT}) + "\n")
    command = ["generate", "m", str(source), "--out", str(out), *SHORT]
    first = [*command, "--base-url", "http://one/v1"]
    for given, said in (
        (first, ""),
        ([*command, "--base-url", "http://one/v1/"], ""),
        (
            [*command, "--base-url", "http://two/v1"],
            "with base_url http://one/v1, and this is base_url http://two/v1",
        ),
        ([*first, "--tokenizer", "same"], "was made with tokenizer None, and this is tokenizer"),
    ):
        assert main(given) == (2 if said else 0)
        assert said in capsys.readouterr().err
    assert [row["completions"] for row in rows_of(out)] == [["http://one/v1"] * 2]
    out.unlink()
    for name, code in (("same", 0), ("same", 0), ("other", 2)):
        assert main([*first, "--tokenizer", name]) == code


def other(folder: Path, generator: Path) -> Path:
    """A copy of the generator with other weights."""
    copy = shutil.copytree(generator, folder / "other")
    weights = load_file(copy / "model.safetensors")
    name = next(iter(weights))
    save_file(weights | {name: -weights[name]}, copy / "model.safetensors", {"format": "pt"})
    return copy


@pytest.mark.slow
def test_rows_are_read_as_they_come(tmp_path: Path, generator: Path):
    """The first row is answered before the second is written."""
    child = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "generate", str(generator), "-", *SHORT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    with child:
        assert child.stdin
        assert child.stdout
        for at in range(2):
            child.stdin.write(json.dumps({"id": at, "prompt": PROMPT}).encode() + b"\n")
            child.stdin.flush()
            assert json.loads(child.stdout.readline())["id"] == at
    assert child.returncode == 0


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
