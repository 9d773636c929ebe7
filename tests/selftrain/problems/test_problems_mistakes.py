"""Tests of mistakes in a user's own rows and in the places that name them: one line that says what to do; null columns."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from selftrain.config import ExecuteConfig, JsonlConfig, RunConfig
from selftrain.errors import DataError
from selftrain.problems.read import read_problems
from selftrain.records import Problem
from selftrain.stages.execute import limits_for
from tests.selftrain.problems.made import DESCRIPTIONS, py_row, write_jsonl


def own(at: int) -> dict[str, Any]:
    row = py_row("", DESCRIPTIONS[at])
    return {"task": f"own {at}", "language": "py", "prompt": row["prompt"], "tests": row["tests"]}


def jsonl(folder: Path, rows: list[Any], **more: Any) -> JsonlConfig:
    path = write_jsonl(folder / "own.jsonl", rows)
    return JsonlConfig.model_validate({"languages": ["py"], "files": str(path)} | more)


IO = {"tests": "", "cases": [{"stdin": "1\n", "stdout": "2\n"}]}


def test_columns_that_a_table_fills_with_null_are_as_if_absent(tmp_path: Path) -> None:
    columns = (
        "cases",
        "stop_tokens",
        "response",
        "example_tests",
        "compare",
        "checker",
        "time_limit",
        "id",
        "source",
    )
    rows = [own(0) | dict.fromkeys(columns), own(1) | IO | {"tests": None, "compare": None}]
    functions, stdio = read_problems(jsonl(tmp_path, rows, shares={"test": 1}))
    assert (functions.kind, functions.id, functions.stop_tokens) == ("program", f"{functions.task}.py", ())
    assert (stdio.kind, stdio.compare) == ("stdio", "lines")


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (IO | {"time_limit": {"seconds": 10**400}}, "field 'time_limit': int too large"),
        (IO | {"time_limit": 1e300}, "field 'time_limit': Input should be less than or equal to 86400"),
        (IO | {"time_limit": []}, "field 'time_limit': Input should be a valid number"),
        (IO | {"memory_limit_bytes": 2**70}, "field 'memory_limit_bytes': Input should be less than or equal to"),
        (IO | {"memory_limit_bytes": "256MB"}, "field 'memory_limit_bytes': expected bytes, such as 268435456, got '256MB'"),
        (IO | {"time_limit": "2 seconds"}, "field 'time_limit': expected seconds, such as 1.5 or 1.5s, got '2 seconds'"),
        (IO | {"time_limit": {"seconds": "x"}}, "field 'time_limit': expected seconds, such as 1.5 or 1.5s, got"),
        (IO | {"cases": [["1", "2"]]}, r"field 'cases\.0': expected an object of fields, got \['1', '2'\]"),
        (IO | {"cases": [{"stdout": "2"}]}, r"field 'cases\.0\.stdin' is missing in its object, which has: stdout"),
        (IO | {"compare": "tokns"}, "field 'compare': unknown rule"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_told_in_one_line(tmp_path: Path, broken: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=rf"own\.jsonl:1: {said}") as raised:
        read_problems(jsonl(tmp_path, [own(0) | broken], shares={"test": 1}))
    assert "\n" not in str(raised.value)


def test_rows_and_places_of_another_kind_are_told_with_what_to_do(tmp_path: Path) -> None:
    for rows, said in (
        ([[own(0), own(1)]], "expected a JSON object, .*; a list of objects: name the file .json"),
        ([py_row("T", "a")], "the row has MultiPL-E's fields, .* expected problems.source: multipl-e"),
    ):
        with pytest.raises(DataError, match=said):
            read_problems(jsonl(tmp_path, rows, shares={"test": 1}))
    for place, said in (
        ("s3://b/p.jsonl", "copy them here"),
        ("a" * 5000, "5000 characters are no path"),
        ("a" * 300, "300 characters are no path"),
    ):
        with pytest.raises(DataError, match=said):
            read_problems(JsonlConfig(languages=("py",), files=(place,), shares={"test": 1}))


def test_limits_that_no_machine_has_are_refused() -> None:
    for name, value in (("cpu_seconds", 1e300), ("memory_bytes", 2**64)):
        with pytest.raises(ValidationError, match=rf"execute\.{name}\s.*less than or equal"):
            RunConfig.model_validate({"execute": {name: value}})
    problem = Problem(
        "a.py", "a", "py", "", "", "rl", "own", cases=({"stdin": "", "stdout": ""},), time_limit=80_000.0
    )
    limits = limits_for(problem, ExecuteConfig(time_scale=1e300))
    assert limits is not None
    assert limits.cpu_seconds == 86_400
