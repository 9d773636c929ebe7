"""Tests of records: they are read as they were written, and the digest covers only result columns."""

from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path

import pytest

from sandbox.verdicts import Verdict
from selftrain.errors import DataError
from selftrain.records import (
    Candidate,
    CandidateText,
    Execution,
    Pair,
    Problem,
    Writer,
    digest,
    iter_records,
    read_records,
    row_count,
    slice_records,
    write_records,
)

AWKWARD = 'naïve Ω 🦊\n\t"quotes" \\ \x00 end'
PROBLEM = Problem(
    id="a.py", task="a", language="py", prompt=AWKWARD, tests="assert f(1)", split="sft", source="bank",
    stop_tokens=("\ndef", "\n#"), response="    return 1", example_tests="assert f(0)",
)  # fmt: skip
STDIO = Problem(
    id="b.py", task="b", language="py", prompt="", tests="", split="test", source="",
    cases=({"stdin": "1\n", "stdout": ""}, {"stdin": "", "stdout": "é"}), compare="tokens", time_limit=1.5,
    checker={"language": "py", "program": "print('accept')"}, memory_limit_bytes=1 << 33,
)  # fmt: skip
CANDIDATE = Candidate("a.py#0", "a.py", 0, AWKWARD, (5, 2**31 - 1, 0), -12.345678901234567, "stop")
NOTHING = Candidate("a.py#-1", "a.py", -1, "", (), 0.0, "length")
EXECUTION = Execution("a.py#0", "a.py", Verdict.passed, 0, True, 1.0, 0.1, 0.2, 1 << 33, AWKWARD)
FAILED = Execution("a.py#1", "a.py", Verdict.timeout, None)
PAIR = Pair("a.py", "p", "right", "", "a.py#0", "a.py#1", "hard_negative", 2, 0.25, -1e-300, 0.5)
FIRST = Pair("a.py", "p", "right", "wrong", "a.py#0", "a.py#2", "easy", 1)


@pytest.mark.parametrize(
    "records",
    [[PROBLEM, STDIO], [CANDIDATE, NOTHING], [EXECUTION, FAILED], [PAIR, FIRST]],
    ids=lambda r: type(r[0]).__name__,
)
def test_what_is_written_is_read(tmp_path: Path, records: list):
    write_records(tmp_path / "records.parquet", records, type(records[0]))
    assert read_records(tmp_path / "records.parquet", type(records[0])) == records


def test_problems_of_before_there_were_rules_and_limits_are_read(tmp_path: Path):
    import pyarrow.parquet as pq

    path = tmp_path / "old.parquet"
    write_records(path, [PROBLEM], Problem)
    later = ["compare", "checker", "time_limit", "memory_limit_bytes"]
    pq.write_table(pq.read_table(path).drop_columns(later), path)
    assert read_records(path, Problem) == [PROBLEM]


def test_a_column_that_is_needed_and_missing_is_said_to_be_so(tmp_path: Path):
    import pyarrow.parquet as pq

    path = tmp_path / "foreign.parquet"
    write_records(path, [EXECUTION], Execution)
    pq.write_table(pq.read_table(path).drop_columns(["verdict", "exit_code", "output"]), path)
    said = "foreign.parquet: it has no column verdict, exit_code; expected a row for each Execution"
    with pytest.raises(DataError, match=said):
        read_records(path, Execution)
    with pytest.raises(DataError, match=said):
        slice_records(path, Execution, 0, 1)


@pytest.mark.parametrize("kind", [Problem, Candidate, Execution, Pair])
def test_no_records_are_written_and_read(tmp_path: Path, kind: type):
    write_records(tmp_path / "none.parquet", [], kind)
    assert read_records(tmp_path / "none.parquet", kind) == []


@pytest.mark.parametrize("verdict", Verdict)
def test_every_verdict_is_read_as_itself(tmp_path: Path, verdict: Verdict):
    write_records(tmp_path / "one.parquet", [replace(EXECUTION, verdict=verdict)], Execution)
    assert read_records(tmp_path / "one.parquet", Execution)[0].verdict is verdict


def test_the_digest_leaves_out_what_was_measured():
    measured = {f.name for f in fields(Execution) if f.metadata.get("measured")}
    assert measured == {"cpu_seconds", "wall_seconds", "peak_memory_bytes", "output"}
    slower = replace(EXECUTION, cpu_seconds=9.0, wall_seconds=9.0, peak_memory_bytes=9, output="other")
    assert digest([slower]) == digest([EXECUTION])


CHANGES = [
    (EXECUTION, {"verdict": Verdict.wrong_answer}), (EXECUTION, {"exit_code": 1}), (EXECUTION, {"examples_passed": None}),
    (EXECUTION, {"pass_rate": 0.5}), (PAIR, {"gap": 1.0}),
    (CANDIDATE, {"token_ids": (5, 2**31 - 1)}), (CANDIDATE, {"logprob": -12.345678901234569}), (CANDIDATE, {"completion": ""}),
    (PAIR, {"rejected_score": None}), (PAIR, {"kind": "easy"}), (PROBLEM, {"split": "test"}), (PROBLEM, {"response": None}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("record", "change"), CHANGES, ids=[f"{type(r).__name__}.{next(iter(c))}" for r, c in CHANGES]
)
def test_the_digest_changes_with_every_result(record: object, change: dict):
    assert digest([replace(record, **change)]) != digest([record])  # type: ignore[type-var]


def test_the_digest_goes_by_the_order_and_the_number():
    one, other = CANDIDATE, NOTHING
    assert len({digest(rows) for rows in ([], [one], [other], [one, other], [other, one], [one, one])}) == 6


def test_the_digest_survives_storage(tmp_path: Path):
    write_records(tmp_path / "records.parquet", [CANDIDATE, NOTHING], Candidate)
    assert digest(read_records(tmp_path / "records.parquet", Candidate)) == digest([CANDIDATE, NOTHING])


def test_a_large_file_is_written_and_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import pyarrow.parquet as pq

    rows = [replace(CANDIDATE, id=f"a.py#{n}", sample=n, token_ids=(n,) * (n % 4)) for n in range(25)]
    whole = write_records(tmp_path / "whole.parquet", rows, Candidate)
    monkeypatch.setattr("selftrain.records.ROWS", 8)
    with Writer(tmp_path / "parts.parquet", Candidate) as writer:
        for start in range(0, 25, 6):
            writer.add(rows[start : start + 6])
    assert writer.digest == whole == digest(rows)
    assert pq.read_metadata(tmp_path / "parts.parquet").num_row_groups == 4
    for name in ("whole", "parts"):
        path = tmp_path / f"{name}.parquet"
        assert read_records(path, Candidate) == rows
        assert row_count(path) == 25
        assert max(map(len, iter_records(path, Candidate))) <= 8
        for start, stop in [(0, 25), (7, 9), (8, 16), (24, 30), (25, 30), (3, 3)]:
            assert slice_records(path, Candidate, start, stop) == rows[start:stop]


def test_a_slice_reads_its_own_row_groups_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import pyarrow.parquet as pq

    monkeypatch.setattr("selftrain.records.ROWS", 8)
    write_records(tmp_path / "rows.parquet", [CANDIDATE] * 25, Candidate)
    read: list[int] = []
    real = pq.ParquetFile.read_row_group

    def spied(file: pq.ParquetFile, group: int, names: list[str]) -> object:
        read.append(group)
        assert "token_ids" not in names
        return real(file, group, names)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", spied)
    text = CandidateText("a.py#0", "a.py", 0, AWKWARD)
    assert slice_records(tmp_path / "rows.parquet", CandidateText, 9, 18) == [text] * 9
    assert read == [1, 2]


def test_a_file_that_cannot_be_finished_is_not_left_behind(tmp_path: Path):
    with pytest.raises(DataError, match="logprob is nan in 1 of 2 rows"):
        write_records(
            tmp_path / "bad.parquet", [CANDIDATE, replace(CANDIDATE, logprob=float("nan"))], Candidate
        )
    with suppress(ZeroDivisionError), Writer(tmp_path / "bad.parquet", Candidate) as writer:
        writer.add([CANDIDATE])
        1 / 0  # noqa: B018
    assert not list(tmp_path.iterdir())
