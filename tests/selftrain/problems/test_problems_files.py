"""Files in, rows out; what is wrong with a file is said with its place."""

import gzip
import json
import os
from pathlib import Path

import pytest

from selftrain.errors import DataError
from selftrain.problems.rows import digest_files, find_files, read_rows
from tests.selftrain.problems.made import write_jsonl


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_json_lines(tmp_path: Path, name: str) -> None:
    path = write_jsonl(tmp_path / name, [{"x": 1}, {"x": "ü"}])
    rows = list(read_rows(path))
    assert [row.fields for row in rows] == [{"x": 1}, {"x": "ü"}]
    assert [row.where for row in rows] == [f"{path}:1", f"{path}:2"]
    assert rows[0].source == name


def test_json_with_one_problem_or_a_list(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text('{\n  "x": 1\n}')
    (tmp_path / "two.json.gz").write_bytes(gzip.compress(b'[{"x": 2}, {"x": 3}]'))
    found = find_files([str(tmp_path)])
    assert [row.fields["x"] for path in found for row in read_rows(path)] == [1, 2, 3]


def test_folders_globs_and_names(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl", "notes.txt", "deep/c.jsonl", "d[1].jsonl"):
        write_jsonl(tmp_path / name, [{}])
    names = lambda *entries: [path.name for path in find_files([str(tmp_path / entry) for entry in entries])]  # noqa: E731
    assert names(".") == ["a.jsonl", "b.jsonl", "d[1].jsonl"]
    assert names("**/*.jsonl") == ["a.jsonl", "b.jsonl", "d[1].jsonl", "c.jsonl"]
    assert names("b.jsonl", "*.jsonl") == ["a.jsonl", "b.jsonl", "d[1].jsonl"]
    assert names("d[1].jsonl") == ["d[1].jsonl"]


@pytest.mark.parametrize("entry", ["nothing-*.jsonl", "no.jsonl", "empty"])
def test_an_entry_that_names_nothing(tmp_path: Path, entry: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no problem file there; expected a file, a folder or a glob"):
        find_files([str(tmp_path / entry)])


def test_a_broken_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"x": 1}\n\n{"x": 2\n')
    with pytest.raises(DataError, match=r"a\.jsonl:3: broken JSON at column 8 .*'\{\"x\": 2'"):
        list(read_rows(path))


def test_broken_json_over_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{\n  "x": 1,\n}\n')
    with pytest.raises(DataError, match=r"a\.json:3: broken JSON"):
        list(read_rows(path))


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_an_empty_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r":1: the file holds no problems"):
        list(read_rows(write_jsonl(tmp_path / name, [])))


def test_a_truncated_archive(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    rows = [{"x": os.urandom(40).hex()} for _ in range(200)]
    whole = gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        DataError, match=r"a\.jsonl\.gz:\d+: damaged or truncated archive .*fetch the file again"
    ):
        list(read_rows(path))
    path.write_bytes(b'{"x": 1}\n')
    with pytest.raises(DataError, match=r"a\.jsonl\.gz:1: damaged or truncated archive"):
        list(read_rows(path))


def test_a_file_in_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"x": 1}\n{"x": "\xfc"}\n')
    with pytest.raises(DataError, match=r"a\.jsonl:\d+: not UTF-8"):
        list(read_rows(path))


def test_an_unknown_format(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x\n1\n")
    with pytest.raises(DataError, match=r"a\.csv: unknown format; expected one of \.json"):
        list(read_rows(tmp_path / "a.csv"))


def test_the_digest_is_of_the_content_alone(tmp_path: Path) -> None:
    first, second = (
        write_jsonl(tmp_path / "one/a.jsonl", [{"x": 1}]),
        write_jsonl(tmp_path / "one/b.jsonl", [{"x": 2}]),
    )
    digest = digest_files([first, second])
    assert len(digest) == 64
    assert digest_files([second, first]) == digest
    moved = write_jsonl(tmp_path / "two/z.jsonl", [{"x": 1}])
    os.utime(moved, (0, 0))
    assert digest_files([moved, second]) == digest
    moved.write_bytes(moved.read_bytes().replace(b"1", b"3"))
    assert digest_files([moved, second]) != digest
    assert digest_files([first]) != digest
