"""Tests of `selftrain rank --batch`: rows, bad lines, a batch that goes on after a kill, streams, folders."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from flows.cli import main
from flows.cli_batch import Line, candidate_files, rank_file, rank_lines, read_lines
from flows.lines import Before, encoded, go_on, read_text
from selftrain.errors import UsageError
from selftrain.rerank.picker import Picked, Picker
from selftrain.rerank.ranker import identity
from selftrain.rerank.reranker import Ranking, Reranker
from tests.command import ROOT

PROMPT = "def one():\n"
BY = {"by": "length", "reranker": "a"}
TEXTS = ["    return 2\n", "    return 1\n", "    return None\n"]


class Longest:
    """Ranks by length, and refuses candidates that are all empty."""

    def __init__(self) -> None:
        self.asked = 0

    def rank(self, prompt: str, candidates: Sequence[str], language: str | None = None) -> Ranking:
        self.asked += 1
        if not any(candidates):
            raise UsageError("no candidate can be ranked")
        return Ranking(tuple(float(len(text)) if text else -float("inf") for text in candidates))

    def rank_many(self, problems: Sequence[tuple[str, Sequence[str], str | None]]) -> list[Ranking]:
        return [self.rank(*problem) for problem in problems]


def write(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


ROWS: list[Any] = [
    {"id": "a", "prompt": PROMPT, "candidates": ["x", "xyz", "xy"]},
    "{broken",
    "",
    {"id": 3, "prompt": PROMPT, "completions": ["", "x"], "language": "py", "task": "of generate's"},
    {"id": 4, "prompt": PROMPT, "candidates": ["", ""]},
    {"prompt": 5, "candidates": ["x"]},
    {"prompt": PROMPT, "candidates": "x"},
    {"prompt": PROMPT, "candidates": ["xx"]},
]  # fmt: skip


def test_rows_and_bad_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    source, target = write(tmp_path / "in.jsonl", ROWS), tmp_path / "out.jsonl"
    assert rank_file(Longest(), BY, str(source), str(target)) == 1
    found = rows_of(target)
    assert [row["line"] for row in found] == [1, 2, 4, 5, 6, 7, 8]
    assert {row["by"] for row in found} == {"length"}
    picked = {
        row["line"]: (row.get("id"), row["best"], row["pick"], row["scores"])
        for row in found
        if "best" in row
    }
    assert picked == {
        1: ("a", 1, "xyz", [1.0, 3.0, 2.0]),
        4: (3, 1, "x", [None, 1.0]),
        8: (None, 0, "xx", [2.0]),
    }
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith(f"selftrain: {source}:2: broken JSON at column 2")
    assert said[1:4] == [
        f"selftrain: {source}:5: no candidate can be ranked",
        f"selftrain: {source}:6: `prompt`: expected a text",
        f"selftrain: {source}:7: `candidates`: expected a list of at least one text",
    ]
    assert said[-1] == "selftrain: 8 lines ranked by length, 4 of them could not be"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"promt": PROMPT, "candidates": ["x"]}, "field `prompt` is missing; found: promt, candidates"),
        ({"prompt": PROMPT, "answers": ["x"]}, "field `candidates` is missing; found: prompt, answers"),
        ({}, "field `prompt` is missing; found: nothing"),
        ({"prompt": PROMPT, "candidates": None}, "`candidates`: expected a list of at least one text"),
        ({"prompt": PROMPT, "candidates": ["x", 7]}, "`candidates`: expected a list of at least one text"),
        ({"prompt": None, "candidates": ["x"]}, "`prompt`: expected a text"),
    ],
)
def test_a_field_that_is_missing_is_told_from_one_that_is_wrong(row: dict[str, Any], said: str):
    [line] = read_lines(io.BytesIO(json.dumps(row).encode()), "in", 0)
    assert line.error == said


class Unsure(Longest):
    """Says of candidates of the letter a that they are unlike its training, and of those of b that they are too close to tell."""

    def rank(self, prompt: str, candidates: Sequence[str], language: str | None = None) -> Ranking:
        scores = super().rank(prompt, candidates, language).scores
        letter = candidates[0][0]
        if letter == "c":  # the generator was not needed, and there is no calibration
            return Picked(scores)
        return Picked(scores, (-3.0 if letter == "a" else -0.5,), -1.0, 0.5 if letter == "b" else 0.9)


def test_a_line_says_whether_its_order_can_be_relied_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    asked = [{"prompt": PROMPT, "candidates": [text]} for text in ("a", "b", "c", "a")]
    source, target = write(tmp_path / "in.jsonl", asked), tmp_path / "out.jsonl"
    assert rank_file(Unsure(), BY, str(source), str(target)) == 0
    told = [{name: row[name] for name in ("far", "close") if name in row} for row in rows_of(target)]
    assert told == [
        {"far": True, "close": False},
        {"far": False, "close": True},
        {},
        {"far": True, "close": False},
    ]
    said = (
        "2 of the lines ranked now are unlike what length was trained on (`far`): do not rely on their order"
    )
    assert f"selftrain: {said}\n" in capsys.readouterr().err
    target.write_bytes(target.read_bytes().splitlines(keepends=True)[0])
    assert rank_file(Unsure(), BY, str(source), str(target)) == 0
    assert "1 of the lines ranked now" in capsys.readouterr().err


def test_a_batch_goes_on_where_it_was_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    source, target = write(tmp_path / "in.jsonl", ROWS), tmp_path / "out.jsonl"
    rank_file(Longest(), BY, str(source), str(target))
    whole = target.read_bytes()
    for kept in (0, 1, len(whole) // 2, whole.index(b"\n") + 1, len(whole) - 1, len(whole)):
        target.write_bytes(whole[:kept])
        assert rank_file(Longest(), BY, str(source), str(target)) == 1
        assert target.read_bytes() == whole
        assert "4 of them could not be" in capsys.readouterr().err
    ranker = Longest()
    rank_file(ranker, BY, str(source), str(target))
    assert ranker.asked == 0


def test_another_batchs_output_is_refused(tmp_path: Path):
    source, target = write(tmp_path / "in.jsonl", ROWS), tmp_path / "out.jsonl"
    rank_file(Longest(), BY, str(source), str(target))
    other = write(tmp_path / "other.jsonl", [*ROWS[:-1], {"prompt": PROMPT, "candidates": ["y"]}])
    plain = write(tmp_path / "plain.jsonl", [{"by": "length"}])
    early = write(tmp_path / "early.jsonl", [BY | {"line": 0}])
    bare = write(tmp_path / "bare.jsonl", [{"line": 1, "by": "length"}])
    notes = tmp_path / "notes"
    notes.write_text("mine")
    settings = tmp_path / "settings.json"
    settings.write_text('{"model": "mine"}')  # without an end of line, as `json.dump` writes it
    for maker, arguments, said in (
        (BY, (source, notes), "not the result of this command"),
        (BY, (source, settings), "not the result of this command"),
        (BY, (other, target), "answers other lines"),
        (BY, (source, tmp_path), "cannot be read"),
        (BY, (source, early), "not the result"),
        (BY, (source, bare), "does not say by which sha256, reranker it was made: another version"),
        (BY | {"by": "width"}, (source, target), "was made with by length, and this is by width"),
        (BY | {"reranker": "b"}, (source, target), "was made with reranker a, and this is reranker b"),
        (BY, (source, plain), "not the result of this command"),
    ):
        with pytest.raises(UsageError, match=said) as refused:
            rank_file(Longest(), maker, *map(str, arguments))
        assert arguments[1] == tmp_path or "or move that file away to begin anew" in str(refused.value)
    assert notes.read_text() == "mine"
    assert settings.read_text() == '{"model": "mine"}'
    assert rows_of(plain) == [{"by": "length"}]


def test_a_line_that_has_changed_since_it_was_answered_is_told(tmp_path: Path):
    source, target = write(tmp_path / "in.jsonl", ROWS), tmp_path / "out.jsonl"
    rank_file(Longest(), BY, str(source), str(target))
    answers = target.read_bytes()
    changed = {"prompt": PROMPT, "candidates": ["y"]}
    for at in range(len(ROWS)):
        write(source, [*ROWS[:at], changed, *ROWS[at + 1 :]])
        number = 1 + source.read_bytes().splitlines().index(json.dumps(changed).encode())
        with pytest.raises(UsageError, match=f"answers other lines than those of .*, line {number} for one"):
            rank_file(Longest(), BY, str(source), str(target))
    assert target.read_bytes() == answers
    write(source, ROWS[:1])  # the others are gone
    with pytest.raises(UsageError, match="answers other lines"):
        rank_file(Longest(), BY, str(source), str(target))


def test_half_of_a_surrogate_pair_stays_as_it_is():
    for row in ({"id": "\ud800é"}, {"id": "é", "deep": [{"\udfff": 1}]}):
        assert json.loads(encoded(row)) == row
    assert "é".encode() in encoded({"id": "é"})


@pytest.mark.parametrize(
    "arguments", [["--batch", "IN", "-"], ["--prompt", "prompt", "b.py", "é\x1b\udcff.py"]]
)
def test_standard_output_may_be_closed_or_of_few_characters(
    tmp_path: Path, reranker: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "IN", [{"prompt": PROMPT, "candidates": ["    return 'é'\n"]}])
    for name, text in (("prompt", PROMPT), ("b.py", "    x\n"), ("é\x1b\udcff.py", "    y = 'é'\n")):
        Path(name).write_text(text, "utf-8")
    monkeypatch.setattr("sys.stdout", None)
    assert main(["rank", str(reranker), *arguments]) == 0
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, "ascii"))
    assert main(["rank", str(reranker), *arguments]) == 0
    sys.stdout.flush()
    if arguments[0] == "--batch":
        assert json.loads(written.getvalue())["pick"] == "    return 'é'\n"
    else:
        assert rb"\xe9<U+001B><U+DCFF>.py" in written.getvalue()


def test_files_that_cannot_be_used_are_told_before_a_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """By both commands that answer lines."""
    for module in ("selftrain.rerank.ranker.load_ranker", "flows.cli_generate._generator"):
        monkeypatch.setattr(module, lambda *_: pytest.fail("a model was loaded"))
    source, nowhere = write(tmp_path / "in.jsonl", ROWS), tmp_path / "no" / "out.jsonl"
    os.mkfifo(tmp_path / "pipe")
    for files, said in (
        ((tmp_path, "out"), f"{tmp_path} is a folder; expected a file of JSON lines with `prompt`"),
        (("nowhere", "out"), "nowhere: no such file; expected a file of JSON lines with `prompt`"),
        ((source, tmp_path), f"{tmp_path} is a folder; expected the name of a file to write"),
        ((source, nowhere), f"{nowhere} cannot be written: there is no folder {nowhere.parent}"),
        ((source, source), "input and output are one file"),
    ):
        given, out = map(str, files)
        for command in (["rank", "run", "--batch", given, out], ["generate", "run", given, "--out", out]):
            assert main(command) == 2
            [line] = capsys.readouterr().err.splitlines()
            assert said in line
    assert main(["rank", "run", "--batch", str(tmp_path / "pipe"), "out"]) == 2
    assert "standard input or a pipe cannot go on; expected IN OUT, or" in capsys.readouterr().err
    assert not Path("out").exists()


def test_a_batch_that_goes_on_reads_its_files_once(tmp_path: Path):
    """What is before the first row that is asked for: the output, and the input up to there line by line."""
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    for rows, ends in ((0, ""), (1, ""), (3, ""), (3, "\n"), (3, "\n\n"), (2000, "\n" * 1000)):
        text = "\n".join(
            json.dumps({"prompt": PROMPT, "candidates": ["x" * at]}) for at in range(1, rows + 1)
        )
        source.write_text(text + ends)
        lines = len(source.read_bytes().splitlines())
        target.unlink(missing_ok=True)
        assert go_on(str(source), str(target), BY) == Before(lines)
        rank_file(Longest(), BY, str(source), str(target))
        assert go_on(str(source), str(target), BY) == Before(lines, rows, 0, len(text) + bool(ends and rows))


def test_an_output_that_cannot_be_read_again_is_begun_anew(tmp_path: Path):
    """Such as /dev/stdout, where it is a pipe that this process itself holds open: reading it would wait for ever."""
    source, pipe = write(tmp_path / "in.jsonl", ROWS[:1]), tmp_path / "pipe"
    os.mkfifo(pipe)
    both = os.open(pipe, os.O_RDWR)
    done = threading.Thread(target=rank_file, args=(Longest(), BY, str(source), str(pipe)), daemon=True)
    done.start()
    done.join(60)
    assert not done.is_alive()
    [answer] = os.read(both, 1 << 16).splitlines()
    assert json.loads(answer)["line"] == 1
    os.close(both)


def test_a_byte_order_mark_is_no_part_of_a_prompt(tmp_path: Path):
    (tmp_path / "p.txt").write_bytes(b"\xef\xbb\xbfdef f():\n")
    assert read_text(str(tmp_path / "p.txt")) == "def f():\n"


class ByLanguage:
    """Gives candidates the number of letters of their language as score."""

    def rank_many(self, problems: Sequence[tuple[str, Sequence[str], str | None]]) -> list[Ranking]:
        return [Ranking((float(len(language or "")),) * len(texts)) for _, texts, language in problems]


def test_lines_are_ranked_together_in_their_own_languages():
    lines = [Line(at, "", None, PROMPT, ("x",), language) for at, language in enumerate(("py", None, "cpp"))]
    assert [row["scores"] for row in rank_lines(ByLanguage(), BY, lines, 64)] == [[2.0], [0.0], [3.0]]


def test_only_a_window_of_lines_is_held(tmp_path: Path):
    read = 0

    def lines():
        nonlocal read
        for number in range(1, 10_001):
            read += 1
            yield Line(number, "", None, PROMPT, ("x", "xy"))

    for row in rank_lines(Longest(), BY, lines(), 64):
        assert read - row["line"] < 64
        assert row["best"] == 1
    assert read == 10_000


def test_lines_that_are_too_long_or_no_text_are_told():
    [line] = read_lines(io.BytesIO(b"\xff\n"), "in", 0)
    assert line.error.startswith("not UTF-8")
    assert [line.number for line in read_lines(io.BytesIO(b"\n{}\n{}"), "in", 1)] == [3, 4]
    deep = b'{"id": ' + b"[" * 700 + b"]" * 700 + b', "prompt": "p", "candidates": ["x"]}\n'
    [line] = read_lines(io.BytesIO(deep), "in", 0)
    assert line.error.startswith("JSON nested too deeply")


def test_log_probabilities_of_a_row_are_used_and_checked(
    tmp_path: Path, picker: Picker, capsys: pytest.CaptureFixture[str]
):
    """Of three programs the one with the highest log-probability is picked, without a generator; a row without them needs it."""
    wrong = (
        [-1.0],
        [-1.0, -2.0, 0.5],
        [-1.0, -2.0, None],
        [-1.0, -2.0, False],
        "-1",
        -1,
        [-1, -2, -(10**400)],
        {},
    )
    row = {"prompt": PROMPT, "candidates": TEXTS}
    rows: list[Any] = [row | {"mean_logprobs": [-3.0, -2, -1.0]}, row | {"mean_logprobs": None}]
    rows += [row | {"mean_logprobs": one} for one in wrong]
    rows.append(json.dumps(row)[:-1] + ', "mean_logprobs": [-1.0, -2.0, -1e400]}')
    source, target = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    assert main(["rank", "a-run", "--batch", str(source), str(target)]) == 1
    first, unknown, *bad = rows_of(target)
    assert first["best"] == 2
    scores = picker.reranker.score(PROMPT, TEXTS)
    assert first["scores"] == pytest.approx([scores[0] - 3000, scores[1] - 2000, scores[2] - 1000], abs=1e-3)
    assert "has no stage sft" in unknown["error"]
    assert len(bad) == len(wrong) + 1
    assert all("mean_logprobs: expected" in one["error"] and "each of 3" in one["error"] for one in bad)


def test_log_probabilities_of_files(
    tmp_path: Path,
    picker: Picker,
    reranker: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    (tmp_path / "prompt.txt").write_text(PROMPT)
    names = [str(tmp_path / f"{at}.py") for at in range(3)]
    for name, text in zip(names, TEXTS, strict=True):
        Path(name).write_text(text)
    command = ["rank", "a-run", "--prompt", str(tmp_path / "prompt.txt"), *names]
    assert main([*command, "--json", "--mean-logprobs", "-3", "-1e-05", "-.5"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["pick"] == names[1]
    assert [one["mean_logprob"] for one in found["candidates"]] == [-3, -1e-05, -0.5]
    for given, said in (
        (["-3", "-inf", "-1"], "each of 3 candidates, finite and at most 0, got 3 values, 2 of them"),
        (["-3", "-nan", "-1"], "got 3 values, 2 of them"),
        (["-3"], "got 1 values"),
        (["-3", "-1", "-1", "--batch", "in", "out"], "--batch has its own"),
        (["-3", "-1", "-1", "--example"], "got both"),
    ):
        assert main([*command, "--mean-logprobs", *given]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert said in line
    monkeypatch.setattr("selftrain.rerank.ranker.load_ranker", lambda *_: picker.reranker)
    assert main([*command, "--mean-logprobs", "-3", "-1", "-1"]) == 2
    assert "is a reranker by itself, which ranks by its score" in capsys.readouterr().err


def test_a_batch_goes_on_with_its_own_reranker_only(
    tmp_path: Path, reranker: Path, capsys: pytest.CaptureFixture[str]
):
    """Another checkpoint in a folder of the same name, and another weight of a run's log-probabilities, are other rerankers."""
    source, target = write(tmp_path / "in.jsonl", ROWS[:1]), tmp_path / "out.jsonl"
    mine = shutil.copytree(reranker, tmp_path / "mine")
    assert main(["rank", str(mine), "--batch", str(source), str(target)]) == 0
    done = target.read_bytes()
    assert rows_of(target)[0]["reranker"] == identity(Reranker.load(reranker))
    assert main(["rank", str(mine), "--batch", str(source), str(target)]) == 0
    weights = load_file(mine / "model.safetensors")
    save_file(
        weights | {"score.weight": -weights["score.weight"]}, mine / "model.safetensors", {"format": "pt"}
    )
    capsys.readouterr()
    assert main(["rank", str(mine), "--batch", str(source), str(target)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "out.jsonl was made with reranker" in line
    assert target.read_bytes() == done

    model = Reranker.load(reranker)
    rules = [
        ("rm-1", 1.0, "a"),
        ("rm-1+logprob", 1.0, "a"),
        ("rm-1+logprob", 2.0, "a"),
        ("rm-1+logprob", 1.0, "b"),
    ]
    found = {
        identity(Picker({"stages": {"sft": {"key": key}}}, model, way, {"logprob_weights": {"rm-1": weight}}))
        for way, weight, key in [*rules, ("rm-1", 2.0, "b")]
    }
    assert len(found) == len(rules), "by the reranker alone, weight and generator do not matter"


@pytest.mark.slow
def test_a_killed_batch_of_a_reranker_goes_on(tmp_path: Path, reranker: Path):
    rows = [{"id": n, "prompt": PROMPT, "candidates": [f"    return {n}\n", *TEXTS]} for n in range(200)]
    source, target = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "flows.cli", "rank", str(reranker), "--batch", str(source), str(target)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    child = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    while not (target.exists() and target.stat().st_size) and child.poll() is None:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert main(["rank", str(reranker), "--batch", str(source), str(target)]) == 0
    found = rows_of(target)
    assert [row["id"] for row in found] == list(range(200))
    expected = Reranker.load(reranker).rank(PROMPT, rows[7]["candidates"])
    assert found[7]["scores"] == pytest.approx(expected.scores, abs=1e-4)
    assert found[7]["best"] == expected.best


@pytest.mark.slow
def test_standard_input_and_wrong_usage(
    tmp_path: Path, reranker: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    source = write(tmp_path / "in.jsonl", [{"prompt": PROMPT, "candidates": TEXTS}, "no"])
    command = [sys.executable, "-m", "flows.cli", "rank", str(reranker), "--batch", "-", "-"]
    with source.open() as given:
        done = subprocess.run(
            command, stdin=given, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
        )
    assert done.returncode == 1
    first, second = map(json.loads, done.stdout.splitlines())
    assert first["pick"] == TEXTS[first["best"]]
    assert "broken JSON" in second["error"]
    assert done.stderr.startswith("selftrain: line 2: broken JSON")
    for arguments, said in (
        (["--batch", "-", "out"], "--batch - OUT: a batch from standard input or a pipe cannot go on"),
        (["--batch", "nowhere", "out"], "nowhere: no such file"),
        (["--batch", str(source), "out", "--prompt", "p"], "--batch has its own prompts"),
    ):
        assert main(["rank", str(reranker), *arguments]) == 2
        assert said in capfd.readouterr().err


def test_a_folder_stands_for_its_files(tmp_path: Path):
    for name in ("b.py", "a.py", ".hidden", "prompt.txt"):
        (tmp_path / name).write_text("x")
    (tmp_path / "empty").mkdir()
    found = candidate_files([str(tmp_path), "c.py"], str(tmp_path / "prompt.txt"))
    assert found == [str(tmp_path / "a.py"), str(tmp_path / "b.py"), "c.py"]
    with pytest.raises(UsageError, match="holds no candidates"):
        candidate_files([str(tmp_path / "empty")], None)
