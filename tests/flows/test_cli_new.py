"""Tests of `selftrain new`: what it writes loads and differs from the defaults, what it asks, and what it refuses."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.cli import main
from selftrain.configfile import load_config

ROW = {
    "task": "double",
    "language": "py",
    "prompt": "def double(n):\n",
    "tests": "assert double(2) == 4\n",
    "response": "    return 2 * n\n",
}


def values(path: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text()))


def test_only_what_differs_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    assert main(["new", "my.yaml", "--source", "bank", "--languages", "py,sh", "--rounds", "3"]) == 0
    assert values(tmp_path / "my.yaml") == {
        "rounds": 3,
        "problems": {"source": "bank", "languages": ["py", "sh"]},
        "runtime": {"backend": "process"},
    }
    config = load_config("my.yaml")
    assert (config.name, config.rounds, config.problems.languages) == ("my", 3, ("py", "sh"))
    said = capsys.readouterr().out
    assert "# rounds of reranker training and PPO\nrounds: 3\n" in said
    assert "it fits" in said
    assert said.endswith("next:\n  selftrain run my.yaml --dry-run\n  selftrain run my.yaml\n")


def test_problems_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    Path("mine.jsonl").write_text(json.dumps(ROW) + "\n")
    code = main(["new", "my.yaml", "--files", "mine.jsonl"])
    said = capsys.readouterr()
    few = {
        "epochs": 60,
        "batch_size": 8,
        "micro_batch_size": 8,
    }  # with the defaults it would make no step that counts
    problems = {"source": "jsonl", "languages": ["py"], "files": ["mine.jsonl"]}
    assert values(tmp_path / "my.yaml") == {"problems": problems, "sft": few}
    assert "# sizes and rates of docs/own-data/own.yaml: a first choice" in said.out
    Path("many.jsonl").write_text("".join(json.dumps(ROW | {"task": f"t{at}"}) + "\n" for at in range(1000)))
    main(["new", "many.yaml", "--files", "many.jsonl"])
    assert values(tmp_path / "many.yaml") == {"problems": problems | {"files": ["many.jsonl"]}}
    capsys.readouterr()
    # One task cannot fill the splits: the config is kept, and what is wrong is told.
    assert code == 1
    assert "selftrain: not planned: no tasks in split " in said.err
    assert "the model starts from random weights, and learns from these answers alone" in said.err
    assert "--base" in said.err
    assert "next:\n  selftrain check-data mine.jsonl\n  selftrain run my.yaml --dry-run\n" in said.out
    Path("my own.jsonl").write_text(json.dumps(ROW | {"task": "again"}) + "\n")
    main(["new", "two.yaml", "--files", "mine.jsonl,my own.jsonl"])
    assert "  selftrain check-data mine.jsonl 'my own.jsonl'\n" in capsys.readouterr().out


def test_a_pretrained_model_takes_the_sizes_of_a_shipped_config(
    tmp_path: Path, generator: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    main(["new", "my.yaml", "--base", str(generator), "--gpus", "2"])
    assert "random weights" not in capsys.readouterr().err
    config, shipped = load_config("my.yaml"), load_config("qwen2.5-coder-0.5b")
    assert (config.sft, config.reward, config.ppo) == (shipped.sft, shipped.reward, shipped.ppo)
    assert config.model.base == str(generator)
    assert (config.runtime.device, config.runtime.processes, config.runtime.backend) == ("cuda", 2, "auto")
    assert "configs/qwen2.5-coder-0.5b.yaml" in Path("my.yaml").read_text()


class Terminal(io.StringIO):
    """Answers that a person types."""

    def isatty(self) -> bool:
        return True


def test_it_asks_for_what_no_flag_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", Terminal("bank\nsh\n\n\n1\n"))
    assert main(["new", "asked.yaml"]) == 0
    assert values(tmp_path / "asked.yaml") == {
        "rounds": 1,
        "problems": {"source": "bank", "languages": ["sh"]},
        "runtime": {"backend": "process"},
    }
    asked = capsys.readouterr().err
    assert "problems from (bank, contests, jsonl, multipl-e) [bank]: " in asked
    assert "rounds [2]: " in asked
    monkeypatch.setattr("sys.stdin", Terminal("bank\npy\n\nmany\n"))
    assert main(["new", "other.yaml"]) == 2
    assert "GPUs: expected a whole number, got 'many'" in capsys.readouterr().err
    assert not Path("other.yaml").exists()
    monkeypatch.setattr("sys.stdin", Terminal("bank\npy\n\n\u00b2\n"))  # a digit that is no whole number
    assert main(["new", "other.yaml"]) == 2
    assert "GPUs: expected a whole number, got '\u00b2'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["there.yaml"], "there.yaml exists, and is not overwritten"),
        (["my.txt"], "expected a name that ends with .yaml"),
        (["my.yaml", "--source", "jsonl"], "source jsonl needs --files"),
        (["my.yaml", "--source", "multipl-e", "--train", "a.jsonl"], "source multipl-e needs --evaluation"),
        (["my.yaml", "--source", "bank", "--files", "a.jsonl"], "--files is not for source bank"),
        (["my.yaml", "--languages", "cobol"], "cobol"),
        (["my.yaml", "--gpus", "-1"], "--gpus: expected 0 or more"),
        (["my.yaml", "--rounds", "0"], "rounds"),
    ],
)
def test_wrong_usage_leaves_no_file(
    tmp_path: Path,
    arguments: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    Path("there.yaml").write_text("kept")
    assert main(["new", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["there.yaml"]
    assert Path("there.yaml").read_text() == "kept"
