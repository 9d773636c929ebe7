"""Tests of stage `execute`: cases run one by one, checkers, limits, and a sandbox that fails."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sandbox.languages import LANGUAGES
from sandbox.verdicts import MIB, Verdict
from selftrain.config import ContestsConfig, ExecuteConfig, JsonlConfig, RunConfig, RuntimeConfig
from selftrain.errors import SandboxFailed, UsageError
from selftrain.problems.read import read_problems
from selftrain.records import Candidate, Execution, Problem, read_records, write_records
from selftrain.stages.execute import (
    EXECUTE,
    ExecuteSlice,
    Tally,
    limits_for,
)
from selftrain.stages.ppo import passing
from selftrain.store.store import Store
from tasks.run import Run
from tasks.sandbox import open_sandbox, sandbox_at_work
from tasks.stages import toolchain
from tests.contexts import judging
from tests.selftrain.problems.made import write_jsonl

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


def executed(
    folder: Path,
    problems: list[Problem] = PROBLEMS,
    programs: dict[str, list[str]] = PROGRAMS,
    **settings: Any,
) -> tuple[dict[str, Execution], list[tuple[float, float]]]:
    """Executions by candidate, and what was told of the progress."""
    folder.mkdir()
    candidates = [
        Candidate(f"{problem}#{at}", problem, at, text, (1,), -1.0, "stop")
        for problem, texts in programs.items()
        for at, text in enumerate(texts)
    ]
    write_records(folder / "problems.parquet", problems, Problem)
    write_records(folder / "candidates.parquet", candidates, Candidate)
    told: list[tuple[float, float]] = []
    context = judging(
        ExecuteSlice(execute=ExecuteConfig(**settings), toolchain={}),
        {"problems": folder, "candidates": folder},
        folder,
        RuntimeConfig(backend="process", workers=2),
        lambda done, total, *_: told.append((done, total)),
    )
    EXECUTE.run(context)
    return {e.candidate_id: e for e in read_records(folder / "executions.parquet", Execution)}, told


def test_cases_that_run_one_by_one_give_the_same_verdicts_and_the_share_that_passes(tmp_path: Path):
    together, _ = executed(tmp_path / "together")
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


BUSY = "import time\nn = int(input())\nwhile time.process_time() < 0.6: pass\nprint(n)\n"


def test_a_contests_rule_and_limits_are_those_of_its_row(tmp_path: Path):
    """Among them a program that takes 0.6 s of processor time, twice the 0.2 s of its row being less, and another's 5 s more."""
    row = {"description": "Print the mean of the numbers, and whether it is whole.", "private_tests": {}}
    mean = {"public_tests": {"input": ["1 2\n"], "output": ["1.5000 NO\n"]}}
    echo = {"public_tests": {"input": ["7\n"], "output": ["7\n"]}}
    rows = [
        row | mean | {"name": "mean", "memory_limit_bytes": 256_000_000},
        row | echo | {"name": "short", "time_limit": {"seconds": 0, "nanos": 200_000_000}},
        row | echo | {"name": "long", "time_limit": {"seconds": 5, "nanos": 0}},
    ]
    path = str(write_jsonl(tmp_path / "contests.jsonl", rows))
    config = ContestsConfig(languages=("py",), evaluation=(path,))
    programs = {
        "mean.py": ["print('  1.5\\nNo')", "print(1.6, 'NO')", "x = bytearray(10 ** 9); print(1.5, 'NO')"],
        "short.py": [BUSY, "print(input())"],
        "long.py": [BUSY],
    }
    found, _ = executed(tmp_path / "run", read_problems(config), programs)
    assert {name: str(row.verdict) for name, row in found.items()} == {
        "mean.py#0": "passed",
        "mean.py#1": "wrong_answer",
        "mean.py#2": "memory_exceeded",
        "short.py#0": "timeout",
        "short.py#1": "passed",
        "long.py#0": "passed",
    }


CHECKER = {
    "language": "sh",
    "program": "[ $(($(cat got))) = $(($(cat input))) ] && echo accept || echo reject",
}


@pytest.mark.parametrize("every_case", [False, True])
def test_a_checker_judges_where_many_answers_are_right(tmp_path: Path, every_case: bool):
    cases = tuple({"stdin": f"{n}\n", "stdout": ""} for n in (5, 6))
    sums = Problem(
        "sums.py", "sums", "py", "n = int(input())\n", "", "rl", "own", cases=cases, checker=CHECKER
    )
    texts = ["print(n - 2, '+', 2)", "print(5)", "print(n - 1)"]
    found, _ = executed(tmp_path / "run", [sums], {"sums.py": texts}, every_case=every_case)
    assert [row.verdict for row in found.values()] == [
        Verdict.passed,
        Verdict.wrong_answer,
        Verdict.wrong_answer,
    ]
    if every_case:
        assert [row.pass_rate for row in found.values()] == [1.0, 0.5, 0.0]


def test_a_checker_that_fails_gives_no_label_and_more_than_some_of_them_no_stage(tmp_path: Path):
    broken = {"language": "sh", "program": "exit 1"}
    sums = replace(PROBLEMS[0], checker=broken)
    with pytest.raises(
        SandboxFailed, match=r"First: abs\.py#0: the checker \(sh\) failed: .* got exit code 1"
    ):
        executed(tmp_path / "run", [sums], {"abs.py": ["print(input())"]})
    found, _ = executed(tmp_path / "more", [sums], {"abs.py": ["print(input())"]}, tolerated_errors=1.0)
    assert not found["abs.py#0"].verdict.is_label


@pytest.mark.parametrize(
    ("time_limit", "memory", "settings", "seconds", "mib"),
    [
        (None, None, {}, None, None),
        (None, None, {"cpu_seconds": 3}, 3, 1024),
        (1.0, None, {}, 2, 1024),
        (1.0, None, {"time_scale": 3, "cpu_seconds": 9}, 3, 1024),
        (1.0, None, {"time_scale": None}, None, None),
        (1.0, None, {"time_scale": None, "cpu_seconds": 9}, 9, 1024),
        (None, 256 * MIB, {}, 10, 512),
        (None, 256 * MIB, {"memory_scale": 1, "memory_bytes": 5}, 10, 256),
        (None, 256 * MIB, {"memory_scale": None, "memory_bytes": 300 * MIB}, 10, 300),
        (None, 16 * MIB, {}, 10, 128),
        (None, 4096 * MIB, {}, 10, 2048),
        (20.0, 256 * MIB, {}, 40, 512),
    ],
)
def test_a_problems_limits_are_scaled_and_go_before_the_settings(
    time_limit: float | None,
    memory: int | None,
    settings: dict[str, Any],
    seconds: float | None,
    mib: int | None,
):
    problem = replace(PROBLEMS[0], time_limit=time_limit, memory_limit_bytes=memory)
    limits = limits_for(problem, ExecuteConfig(**settings))
    if seconds is None:
        assert limits is None
    else:
        own = LANGUAGES["py"].limits
        expected = replace(
            own, cpu_seconds=seconds, wall_seconds=max(30, 3 * seconds), memory_bytes=mib * MIB
        )
        assert limits == expected


def test_the_tools_of_checkers_are_part_of_the_key(tmp_path: Path):
    row = {"task": "a", "language": "py", "prompt": "#", "cases": [{"stdin": "", "stdout": ""}]}
    rows = [row, row | {"task": "b", "checker": {"language": "sh", "program": "echo accept"}}]
    problems = JsonlConfig(languages=("py",), files=(str(write_jsonl(tmp_path / "own.jsonl", rows)),))
    config = RunConfig(problems=problems, runtime=RuntimeConfig(backend="process"))
    assert list(toolchain(Run(config, Store(str(tmp_path / "store"))))) == ["py", "sh"]


def test_the_summary_counts_libraries_that_were_not_there(tmp_path: Path) -> None:
    texts = ["    import nosuch\n", "    import nosuch, more\n", "    return 2\n", "    return 1\n"]
    rows, _ = executed(tmp_path / "lacking", programs={"one.py": texts})

    def metrics(some: list[Execution]) -> dict[str, object]:
        tally = Tally({problem.id: problem for problem in PROBLEMS})
        tally.add(some)
        return tally.metrics()

    assert metrics([*rows.values()])["dependency_missing"] == "nosuch 2"
    assert "dependency_missing" not in metrics([rows["one.py#2"], rows["one.py#3"]])


CHEAT = "    return type('Any', (), {'__eq__': lambda a, b: True})()\n"


@pytest.mark.parametrize(("audit", "verdict"), [("all", Verdict.tampered), ("off", Verdict.passed)])
def test_a_program_that_tampers_with_its_tests_is_no_right_program(
    tmp_path: Path, audit: str, verdict: Verdict
) -> None:
    found, _ = executed(tmp_path / "a", programs={"one.py": ["    return 1\n", CHEAT]}, audit=audit)
    assert [found[f"one.py#{at}"].verdict for at in range(2)] == [Verdict.passed, verdict]
    assert [found[f"one.py#{at}"].passed for at in range(2)] == [True, audit == "off"]


def test_ppo_rewards_a_program_that_tampers_as_a_failure(tmp_path: Path) -> None:
    write_records(tmp_path / "problems.parquet", PROBLEMS, Problem)
    context = judging(
        ExecuteSlice(execute=ExecuteConfig(), toolchain={}),
        {"problems": tmp_path},
        tmp_path,
        RuntimeConfig(backend="process"),
        lambda *_: None,
    )
    with passing(context) as answer:
        assert answer([["one.py", "    return 1\n"], ["one.py", CHEAT], ["one.py", "    return 2\n"]]) == [
            True,
            False,
            False,
        ]


def test_the_rule_of_an_audit_is_checked() -> None:
    with pytest.raises(ValueError, match="expected off, all or sample:P with 0 < P < 1, got 'most'"):
        ExecuteConfig(audit="most")
