"""Execution of test cases one by one: the same verdicts, and the share of the cases that pass."""

from pathlib import Path

import pytest

from sandbox.verdicts import Verdict
from selftrain.config import ExecuteConfig, RuntimeConfig
from selftrain.errors import SandboxFailed, UsageError
from selftrain.records import Candidate, Execution, Problem, read_records, write_records
from selftrain.stage import Build
from tasks.execute import EXECUTE, ExecuteSlice, open_sandbox, sandbox_at_work

CASES = tuple({"stdin": f"{n}\n", "stdout": f"{abs(n)}\n"} for n in (1, -2, 3, -4))
PROBLEMS = [
    Problem("abs.py", "abs", "py", "", "", "rl", "made", cases=CASES),
    Problem("one.py", "one", "py", "def one():\n", "assert one() == 1\n", "rl", "made"),
]
PROGRAMS = {
    "abs.py": [
        "print(abs(int(input())))\n",
        "print(int(input()))\n",
        "print(1 // (int(input()) - 1))\n",
        "print(\n",
    ],
    "one.py": ["    return 1\n", "    return 2\n"],
}


def executed(folder: Path, every_case: bool) -> tuple[dict[str, Execution], list[tuple[float, float]]]:
    """Executions by candidate, and what was told of the progress."""
    folder.mkdir()
    candidates = [
        Candidate(f"{problem}#{at}", problem, at, text, (1,), -1.0, "stop")
        for problem, texts in PROGRAMS.items()
        for at, text in enumerate(texts)
    ]
    write_records(folder / "problems.parquet", PROBLEMS, Problem)
    write_records(folder / "candidates.parquet", candidates, Candidate)
    told: list[tuple[float, float]] = []
    build = Build(
        ExecuteSlice(execute=ExecuteConfig(every_case=every_case), toolchain={}),
        {"problems": folder, "candidates": folder},
        folder,
        RuntimeConfig(backend="process", workers=2),
        lambda done, total, *_: told.append((done, total)),
    )
    EXECUTE.build(build)
    return {e.candidate_id: e for e in read_records(folder / "executions.parquet", Execution)}, told


def test_cases_that_run_one_by_one_give_the_same_verdicts_and_the_share_that_passes(tmp_path: Path):
    together, _ = executed(tmp_path / "together", every_case=False)
    alone, told = executed(tmp_path / "alone", every_case=True)
    verdicts = [Verdict.passed, Verdict.wrong_answer, Verdict.runtime_error, Verdict.compile_error]
    assert [alone[f"abs.py#{at}"].verdict for at in range(4)] == verdicts
    for name, row in alone.items():
        assert (row.verdict, row.exit_code) == (together[name].verdict, together[name].exit_code)
        assert together[name].pass_rate is None
    assert [alone[f"abs.py#{at}"].pass_rate for at in range(4)] == [1.0, 0.5, 0.0, 0.0]
    assert [alone[f"one.py#{at}"].pass_rate for at in range(2)] == [None, None], "it has no cases"
    assert [alone[f"one.py#{at}"].verdict for at in range(2)] == verdicts[:2]
    assert told[-1] == (6, 6)


def test_a_daemon_that_goes_away_in_mid_run_is_worth_another_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    runtime = RuntimeConfig(backend="docker")
    with pytest.raises(SandboxFailed, match=r"nobody.sock") as raised, sandbox_at_work(runtime):
        pass
    assert raised.value.retryable
    with pytest.raises(
        UsageError, match=r"nobody.sock"
    ):  # before anything has begun it is for the user to start it
        open_sandbox(runtime)
