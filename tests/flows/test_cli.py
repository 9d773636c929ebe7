"""Tests of wrong command-line usage: a one-line message says what was given, what was expected and what to do."""

import ast
import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from flows.cli import main
from selftrain.launch.ending import ENDING
from tests.command import ROOT, Finished, selftrain


def slip(*arguments: str, cwd: Path = ROOT) -> str:
    """The one line that `selftrain ARGUMENTS`, which is wrong usage, prints to stderr."""
    done = selftrain(*arguments, cwd=cwd)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["champion", "--store", "/nowhere"], "/nowhere: no store is there"),
        (["drift", "--store", "/nowhere"], "/nowhere: no store is there"),
        (["promote", "abc", "--store", "/nowhere"], "/nowhere: no store is there"),
        (["promote", "abc", "--store", "/nowhere", "--name", "demo"], "/nowhere: no store is there"),
        (["why", "rm-2", "--store", "/nowhere"], "/nowhere: no store is there"),
        (["why", "rm-2", "--run", "nowhere"], "nowhere: no run.json there"),
        (["champion", "--store", "configs"], "configs: no store is there"),
        (["champion", "--store", "s3:/bucket/store"], "write s3://bucket/store"),
        (["node", "/nowhere"], "/nowhere: no such folder on this machine"),
        (["node", "s3://bucket/store"], "s3://bucket/store: no such folder on this machine"),
        (["gc", "/nowhere"], "/nowhere is not a store"),
        (["show", "nowhere"], "nowhere: no run.json there"),
        (["runs", "nowhere"], "nowhere: no such folder"),
        (["compare", "nowhere"], "nowhere: no run.json there"),
        (["rank", "nowhere", "--prompt", "README.md", "README.md"], "nowhere"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_a_place_where_nothing_is_is_told(arguments: list[str], said: str):
    assert said in slip(*arguments)


LONG = "x" * 300


@pytest.mark.parametrize(
    "arguments",
    [
        ["new", f"{LONG}.yaml", "--source", "bank"],
        ["evaluate", LONG],
        ["runs", LONG],
        ["rank", "r", "--prompt", "p", LONG],
        ["rank", "r", "--prompt", LONG, "p"],
        ["rank", "r", "--batch", LONG, "out"],
        ["generate", "r", "p", "--out", LONG],
        ["generate", "r", LONG],
        ["plan", "smoke", "--html", LONG],
        ["runs", "p/below"],
    ],
    ids=lambda arguments: " ".join(arguments).replace(LONG, "LONG"),
)
def test_a_path_that_the_system_refuses_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
):
    """A name that is too long, or one below a file."""
    monkeypatch.chdir(tmp_path)
    Path("p").write_text("def f():\n")
    assert main(arguments) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("selftrain: ")
    assert len(line) < 800
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


def test_only_a_command_that_goes_on_says_so_when_it_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ENDING, "goes_on", False)
    monkeypatch.setattr(ENDING, "signal", None)
    monkeypatch.setattr("selftrain.problems.completions.read_completions", interrupted)
    monkeypatch.setattr("flows.lines._asked", interrupted)
    monkeypatch.setattr("flows.cli_generate._generator", lambda *_: None)
    monkeypatch.setattr("flows.cli_generate._maker", lambda *_: {})
    Path("in.jsonl").write_text("{}")
    for command, said in (
        (["evaluate", "in.jsonl"], ""),
        (
            ["generate", "r", "in.jsonl", "--out", "out.jsonl"],
            "; what is finished is kept, run again to go on",
        ),
    ):
        assert main(command) == 130
        assert capfd.readouterr().err.strip() == f"selftrain: ended by SIGINT{said}"
        ENDING.signal = None


def test_questions_without_a_standard_input_are_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("sys.stdin", None)
    assert main(["new", str(tmp_path / "my.yaml"), "--source", "bank"]) == 0
    assert (tmp_path / "my.yaml").is_file()


def test_a_run_in_place_of_the_folder_of_runs_is_told(smoke_run: Finished):
    assert f"selftrain show {smoke_run.out}" in slip("runs", str(smoke_run.out))


def test_why_takes_the_name_of_a_stage(smoke_run: Finished):
    store = str(smoke_run.store)
    key = smoke_run.stages["rm-2"]["key"]
    for arguments in (("--store", store), ("--run", str(smoke_run.out))):
        done = selftrain("why", "rm-2", *arguments)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"train_reward/{key}")
    said = slip("why", "rm-9", "--store", store)
    assert "no artifact with key rm-9" in said
    assert "sft, sample-sft-rl, " in said


def test_the_version_is_told():
    done = selftrain("--version")
    assert done.returncode == 0
    assert re.fullmatch(r"selftrain \S+, Python 3\.\d+\.\S+, /.+\n", done.stdout)


OLD = """
import sys
sys.version_info, sys.version = (3, 9, 2, "final", 0), "3.9.2 (somewhere)"
sys.argv = ["selftrain", "run", "demo"]
import {module}
"""


@pytest.mark.parametrize(("module", "code"), [("flows.cli", 2), ("selftrain", 1)])
def test_an_older_python_is_told_what_is_needed(module: str, code: int):
    done = subprocess.run(
        [sys.executable, "-c", OLD.format(module=module)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == code
    assert "selftrain needs Python 3.11 or newer, this is 3.9.2" in done.stderr.splitlines()[-1]
    package = ROOT / module.split(".")[0] / "__init__.py"
    ast.parse(package.read_text(), feature_version=(3, 9))


def test_the_set_up_tells_an_older_python_what_is_needed(tmp_path: Path):
    python = tmp_path / "python3.9"
    patch = (
        'import sys; sys.version_info, sys.version = (3, 9, 2, "final", 0), "3.9.2"; exec(sys.stdin.read())'
    )
    python.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{patch}'\n")
    python.chmod(0o755)
    for given, said in (
        (str(python), "this is 3.9.2; set PYTHON="),
        ("nowhere/python3", "no Python at nowhere/python3"),
    ):
        environment = os.environ | {"PYTHON": given, "TORCH_INDEX": "", "GPU": ""}
        done = subprocess.run(["infra/setup.sh"], cwd=ROOT, env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (2, "")
        (line,) = done.stderr.splitlines()
        assert said in line


@pytest.mark.parametrize("buffering", [1, -1])
def test_what_a_full_disk_has_no_room_for_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], buffering: int
):
    """At once, or when the command ends."""
    monkeypatch.setattr("flows.cli_inspect.inspect_command", lambda _: print("found") or 0)
    with suppress(OSError), open("/dev/full", "w", buffering) as full:
        monkeypatch.setattr("sys.stdout", full)
        assert main(["inspect", "a-run", "a#1"]) == 1
        assert sys.stdout is not full, "nothing is left that Python would write at its exit"
    assert (
        capsys.readouterr().err == "selftrain: what is printed cannot be written: No space left on device\n"
    )


def test_a_reader_that_ends_early_is_no_fault(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """As `head` in a pipe."""
    monkeypatch.setattr("flows.cli_inspect.inspect_command", lambda _: print("found") or 0)
    reading, writing = os.pipe()
    os.close(reading)
    with suppress(BrokenPipeError), open(writing, "w") as pipe:
        monkeypatch.setattr("sys.stdout", pipe)
        assert main(["inspect", "a-run", "a#1"]) == 0
        assert sys.stdout is not pipe, "nothing is left that Python would write at its exit"
    assert not capsys.readouterr().err
