"""Tests of `selftrain check-data`: each planted fault is found on its line, and nothing else is."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from flows.cli import main


def row(task: str, text: str, name: str, body: str, tests: str, **more: Any) -> dict[str, Any]:
    """A problem of one Python function of `x`."""
    return {
        "task": task,
        "language": "py",
        "prompt": f'def {name}(x):\n    """{text}"""\n',
        "tests": tests,
        "response": f"    return {body}\n",
    } | more


GOOD = [
    row("longest", "Give the longest word of a sentence.", "longest", "max(x.split(), key=len)", "assert longest('a bb') == 'bb'\n"),
    row("area", "Cubes of a cube's edge.", "cube", "x ** 3", "assert cube(2) == 8\nassert cube(3) == 27\n", split="sft"),
]  # fmt: skip
FAULTY = [
    *GOOD,
    row("halved", "Half of a whole number, rounded towards nothing.", "halved", "x // 3", "assert halved(9) == 4\n", split="sft"),
    row("rain", "Millimetres of rain in a week of such days.", "rain", "7 * x", "rain(3)\n"),
    row("broken", "The number of its letters.", "letters", "len(x)", "assert letters('ab' == 2\n"),
    row("longest", "Something else of the same name.", "other", "x", "assert other(2) == 2\n"),
    row("evens", "Keep those numbers that two divides.", "evens", "[n for n in x if n % 2 == 0]", "assert evens([1, 2, 4]) == [2, 4]\n"),
    row("paired", "Drop whatever cannot be shared fairly by a couple.", "pick", "[n for n in x if not n % 2]", "assert pick([3, 6, 7]) == [6]\n"),
]  # fmt: skip
HELD = [row("cubes", "Cubes of a cube's edge.", "volume", "x * x * x", "assert volume(4) == 64\n")]


def write(path: Path, rows: list[dict[str, Any]], more: str = "") -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in rows) + more)
    return path


def found(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, Any]]:
    """The exit code of `selftrain check-data ARGUMENTS --json`, and what it prints."""
    code = main(["check-data", *map(str, arguments), "--json", "--backend", "process"])
    return code, json.loads(capsys.readouterr().out)


def test_a_clean_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = write(tmp_path / "good.jsonl", GOOD)
    code, report = found(capsys, file)
    assert (code, report["findings"], report["problems"]) == (0, [], 2)
    # Those for SFT are tried too; each of the two answers runs on the other's tests.
    assert report["programs"] == {"answers": 2, "empty functions": 2, "answers on other tests": 2}
    assert main(["check-data", str(file), "--backend", "process"]) == 0
    assert "nothing found" in capsys.readouterr().out


def test_every_fault_is_found_on_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = write(tmp_path / "faulty.jsonl", FAULTY, '{"task": "cut off\n{"task": "x", "lang": "py"}\n')
    held = write(tmp_path / "held.jsonl", HELD)
    code, report = found(capsys, file, "--against", held)
    assert code == 2  # there are lines that cannot be read
    places = [(one["where"].rpartition(":")[2], one["kind"], one["id"]) for one in report["findings"]]
    assert places == [
        ("2", "leak", "area.py"),
        ("3", "answer_wrong", "halved.py"),
        ("4", "cannot_fail", "rain.py"),
        ("5", "tests_broken", "broken.py"),
        ("6", "twice", "longest.py"),
        ("8", "duplicates", "paired.py"),
        ("9", "unreadable", ""),
        ("10", "unreadable", ""),
    ]
    texts = [one["text"] for one in report["findings"]]
    assert texts[0] == f"has the text of cubes.py (held out), {held}:1"
    assert texts[1] == "wrong_answer: AssertionError"
    assert texts[5] == f"and evens.py, {file}:7, have answers that pass each other's tests"
    assert main(["check-data", str(write(file, FAULTY)), "--backend", "process"]) == 1
    said = capsys.readouterr().out
    assert (
        f"1 answer fails the tests of the same problem: mend `response` or `tests`, whichever is wrong\n  {file}:3: halved.py"
        in said
    )
    assert "not compared with what is evaluated on" in said


def test_an_answer_in_the_last_line_of_its_prompt_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    joined = {**GOOD[0], "prompt": GOOD[0]["prompt"].rstrip()}
    apart = {**GOOD[1], "prompt": GOOD[1]["prompt"].rstrip(), "response": "\n" + GOOD[1]["response"]}
    code, report = found(capsys, write(tmp_path / "joined.jsonl", [joined, apart]))
    [finding] = report["findings"]
    assert (code, finding["kind"], finding["id"]) == (1, "answer_wrong", "longest.py")
    assert finding["text"].endswith("does not end with a line break, so the answer goes on in its last line")


def test_a_prompt_beyond_the_context(tmp_path: Path, generator: Path, capsys: pytest.CaptureFixture[str]):
    from selftrain.models.models import load_tokenizer

    tokens = len(load_tokenizer(generator)(GOOD[0]["prompt"])["input_ids"])
    file = write(tmp_path / "good.jsonl", GOOD[:1])
    for room, code in ((tokens + 8, 0), (tokens + 2, 1)):  # with a separator, of which there is one or none
        arguments = ("--model", generator, "--context", room, "--new-tokens", 4)
        got, report = found(capsys, file, *arguments)
        assert got == code, report
        assert [one["kind"] for one in report["findings"]] == ["too_long"] * code


def test_a_file_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "packed.jsonl").write_bytes(b"PK\x03\x04")
    (tmp_path / "empty.jsonl").write_text("")
    for name, said in (
        ("packed", "a zip archive"),
        ("empty", "holds no problems"),
        ("none", "no problem file"),
    ):
        assert main(["check-data", str(tmp_path / f"{name}.jsonl")]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert said in line


@pytest.mark.parametrize("name", ["table.jsonl", "table.jsonl.gz"])
def test_a_file_of_which_no_line_can_be_read_is_told_line_by_line(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
):
    text = b"task,language,prompt\nhalf,py,def half(x):\n"
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    code, report = found(capsys, tmp_path / name)
    assert code == 2
    assert [one["kind"] for one in report["findings"]] == ["unreadable"] * 2
    assert report["findings"][0]["text"].startswith(
        "broken JSON at column 1 (Expecting value): 'task,language,prompt'"
    )
    (tmp_path / name).write_bytes(gzip.compress(b"\n") if name.endswith(".gz") else b"\n")
    assert main(["check-data", str(tmp_path / name)]) == 2
    assert "the file holds no problems" in capsys.readouterr().err


def test_a_context_of_no_tokens_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = write(tmp_path / "good.jsonl", GOOD)
    assert main(["check-data", str(file), "--model", "any", "--context", "0"]) == 2
    assert "--context: expected at least 1 token, got 0" in capsys.readouterr().err
