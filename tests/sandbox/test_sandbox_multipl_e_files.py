"""Tests of `python -m sandbox multipl-e`: completions files, MultiPL-E's results files, resuming, errors."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from sandbox.cli import main
from sandbox.client import Sandbox
from sandbox.errors import UsageError
from sandbox.multipl_e import completion_files, evaluate, results_path
from sandbox.shapes import SHAPES

KINDS = ("passed", "wrong_answer", "compile_error", "early_exit", "runtime_error")


def write(path: Path, language: str, kinds: tuple[str, ...] = KINDS, **more: Any) -> None:
    """Write a completions file in MultiPL-E's format."""
    shape = SHAPES[language]
    content = {
        "name": path.name.split(".")[0],
        "language": language,
        "prompt": shape.prompt,
        "tests": shape.tests,
        "completions": [getattr(shape, kind) for kind in kinds],
        "stop_tokens": ["\ndef"],
        "temperature": 0.2,
    }
    with gzip.open(path, "wt") as file:
        json.dump(content | more, file)


def read(path: Path) -> dict[str, Any]:
    with gzip.open(path, "rt") as file:
        return json.load(file)


def run(directory: Path) -> int:
    return main(["multipl-e", str(directory), "--backend", "process", "--workers", "2"])


@pytest.mark.parametrize("language", ["py", "sh"])
def test_results_are_in_multipl_es_own_terms(tmp_path: Path, language: str) -> None:
    write(tmp_path / "HumanEval_0_f.json.gz", language)
    assert run(tmp_path) == 0
    done = read(tmp_path / "HumanEval_0_f.results.json.gz")
    assert {"name", "language", "prompt", "tests", "stop_tokens", "temperature", "results"} == set(done)
    statuses = [(row["status"], row["exit_code"] == 0) for row in done["results"]]
    # An early exit counts as right there.
    assert statuses == [
        ("OK", True),
        ("Exception", False),
        ("SyntaxError", False),
        ("OK", True),
        ("Exception", False),
    ]
    assert done["results"][0].keys() == {"program", "stdout", "stderr", "exit_code", "status", "timestamp"}
    shape = SHAPES[language]
    assert done["results"][0]["program"] == f"{shape.prompt}{shape.passed}\n{shape.tests}"


def test_a_timeout_has_an_exit_code_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox.multipl_e._OTHER_CPU_SECONDS", 0.5)
    write(tmp_path / "slow.json.gz", "py", ("timeout",))
    assert run(tmp_path) == 0
    (row,) = read(tmp_path / "slow.results.json.gz")["results"]
    assert (row["status"], row["exit_code"]) == ("Timeout", -1)


def test_only_new_completions_are_judged(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "a.json.gz"
    path.parent.mkdir(parents=True)
    write(path, "py", ("passed",))
    assert run(tmp_path) == 0
    marked = read(results_path(path))
    marked["results"][0]["timestamp"] = 7
    with gzip.open(results_path(path), "wt") as file:
        json.dump(marked, file)
    write(path, "py", ("passed", "wrong_answer"))
    with Sandbox("process") as sandbox:
        ((found, done),) = evaluate(sandbox, completion_files(tmp_path))
    assert found == path
    assert [row["status"] for row in done["results"]] == ["OK", "Exception"]
    assert done["results"][0]["timestamp"] == 7
    assert read(results_path(path)) == done


def test_what_is_no_completions_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="found none"):
        completion_files(tmp_path)
    (tmp_path / "a.json.gz").write_bytes(b"no archive")
    assert run(tmp_path) == 2
    write(tmp_path / "a.json.gz", "py")
    with gzip.open(tmp_path / "a.json.gz", "wt") as file:
        json.dump({"name": "a"}, file)
    assert run(tmp_path) == 2
    said = capsys.readouterr().err
    assert said.count(f"{tmp_path / 'a.json.gz'}: ") == 2
    assert "lacks language, prompt, tests, completions" in said
    write(tmp_path / "a.json.gz", "py", ("passed",), completions=7)
    assert run(tmp_path) == 2
