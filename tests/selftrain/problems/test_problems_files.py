"""Tests of reading problem files: formats, folders and globs, digests, and errors that name file and line."""

import gzip
import json
import os
from pathlib import Path

import pytest

from selftrain.errors import DataError
from selftrain.problems.rows import Fields, check_fields, digest_files, find_files, read_rows
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
    (tmp_path / "two.json.gz").write_bytes(gzip.compress(b'[{"x": 2}, {"x": 3}]', mtime=0))
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


MARK = b"\xef\xbb\xbf"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", MARK + b'{"x": 1}\n{"x": 2}\n'),
        ("a.jsonl.gz", gzip.compress(MARK + b'{"x": 1}\n{"x": 2}\n', mtime=0)),
        ("a.json", MARK + b'[{"x": 1}, {"x": 2}]'),
        ("two-in-one.jsonl", MARK + b'{"x": 1}\n' + MARK + b'{"x": 2}\n'),
        ("dos.jsonl", b'{"x": 1}\r\n\r\n{"x": 2}\r\n'),
        ("mac.jsonl", b'{"x": 1}\r{"x": 2}\r'),
        ("blank.jsonl", b'\n \t\n{"x": 1}\n\n\n{"x": 2}'),
    ],
)
def test_how_lines_may_be_written(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert [row.fields["x"] for row in read_rows(tmp_path / name)] == [1, 2]


GOOD = b'{"x": 1}\n'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD + b'{"x": ' + b"[" * 200_000 + b"]" * 200_000 + b"}\n", r":2: JSON nested too deeply"),
        (GOOD + b"[" * 200_000, r":2: JSON nested too deeply"),
        (GOOD + b'{"x": ' * 3_000 + b"1" + b"}" * 3_000, r":2: JSON nested too deeply"),
        ('{"x": 1}\n'.encode("utf-16"), r":1: .*UTF-16.*save the file as UTF-8"),
        ('{"x": 1}\n'.encode("utf-16-be"), r":1: .*UTF-16.*save the file as UTF-8"),
        (gzip.compress(GOOD, mtime=0), r":1: .*gzip.*name it \.jsonl\.gz"),
        (b"\x28\xb5\x2f\xfd\x04\x00", r":1: .*Zstandard.*decompress"),
        (b"PK\x03\x04abc", r":1: .*zip.*decompress"),
        (b"PAR1abc", r":1: .*Parquet.*JSON lines"),
        (GOOD + b'{"x": 2,}\n', r":2: broken JSON.*a comma too many"),
        (GOOD + b'{"x": [2, ]}\n', r":2: broken JSON.*a comma too many"),
        (b'{"x": 1},\n{"x": 2}\n', r":1: broken JSON.*a comma too many"),
        (b'{\n"x": 1}\n', r":1: broken JSON.*over several lines.*\.json"),
        (b"{'x': 1}\n", r":1: broken JSON.*double quotes"),
        (GOOD + b'{"x": NaN}\n', r":2: NaN is not JSON; write null"),
        (GOOD + b'{"x": -Infinity}\n', r":2: -Infinity is not JSON; write null"),
        (GOOD + b'{"x": ' + b"9" * 5_000 + b"}\n", r":2: Exceeds the limit"),
        (GOOD + b'{"x": "\\ud83d"}\n', r":2: .*one half of a surrogate pair"),
    ],
)
def test_what_is_wrong_with_a_line_is_said(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as raised:
        list(read_rows(path))
    assert len(str(raised.value)) < 500 + len(str(path))


def test_a_value_that_is_deep_but_can_be_read_is_shown_in_short(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"[" * 900 + b"]" * 900)
    with pytest.raises(DataError, match=r":1: expected a JSON object, got \[\[\["):
        check_fields(next(read_rows(path)), Fields)


def test_several_objects_in_a_file_of_one(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(GOOD + GOOD)
    with pytest.raises(DataError, match=r":2: broken JSON.*several objects.*\.jsonl"):
        list(read_rows(tmp_path / "a.json"))
