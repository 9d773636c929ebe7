"""Configs: what is shipped loads, and what is wrong is refused by name."""

from pathlib import Path
from typing import Any

import pytest

from selftrain.config import RunConfig
from selftrain.configfile import CONFIGS, find_config, load_config, parse_overrides
from selftrain.errors import UsageError

SHIPPED = sorted(CONFIGS.rglob("*.y*ml"))


def test_every_shipped_config_is_found():
    names = {path.relative_to(CONFIGS).as_posix() for path in SHIPPED}
    assert {"demo.yaml", "prod.yaml", "smoke.yaml", "smollm2-135m.yaml"} <= names
    found = [path for path in CONFIGS.rglob("*") if path.is_file() and path.suffix != ".json"]
    assert len(SHIPPED) == len(found), "every file but DeepSpeed's JSON is a config"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.relative_to(CONFIGS).as_posix())
def test_every_shipped_config_loads(path: Path):
    config = load_config(str(path))
    assert config.name == path.stem


def test_a_config_is_found_by_name_or_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "mine.yaml"
    mine.write_text("seed: 7\n")
    assert load_config("mine.yaml").seed == 7
    assert load_config("mine.yaml").name == "mine"
    assert find_config("smoke") == find_config("smoke.yaml") == CONFIGS / "smoke.yaml"
    with pytest.raises(UsageError, match=r"no config 'nope': expected a YAML file or one of: demo, "):
        load_config("nope")


def test_overrides_are_yaml_and_go_on_top():
    overrides = parse_overrides(
        ["sft.epochs=1.5", "problems.languages=[py]", "mine.threshold=null", "store=a=b"]
    )
    assert overrides == {
        "sft.epochs": 1.5,
        "problems.languages": ["py"],
        "mine.threshold": None,
        "store": "a=b",
    }
    config = load_config("smoke", overrides)
    assert config.sft.epochs == 1.5
    assert config.sft.batch_size == load_config("smoke").sft.batch_size
    assert (config.problems.languages, config.store) == (("py",), "a=b")


WRONG = [
    ("sft.epoch", 2, r"sft\.epoch: no such setting"),
    ("colour", "red", r"colour: no such setting"),
    ("sft.epochs", "many", r"sft\.epochs: .*number.*got 'many'"),
    ("sft.epochs", 0, r"sft\.epochs: .*greater than 0; got 0"),
    ("rounds", 0, r"rounds: .*greater than or equal to 1; got 0"),
    ("rounds", 1.5, r"rounds: .*integer.*got 1\.5"),
    ("seed", -1, r"seed: .*got -1"),
    ("name", "../up", r"name: .*got '\.\./up'"),
    ("sample.engine", "magic", r"sample\.engine: .*'ctranslate2' or 'hf'.*got 'magic'"),
    ("sample.temperature", float("nan"), r"sample\.temperature: .*finite.*got nan"),
    ("mine.threshold", float("nan"), r"mine\.threshold: .*finite.*got nan"),
    ("mine.threshold", float("inf"), r"mine\.threshold: .*finite.*got inf"),
    ("problems.shares", {"sft": float("nan")}, r"problems\..*shares\.sft: .*got nan"),
    ("problems.languages", ["py", "cobol"], r"unknown cobol; known: py, cpp"),
    ("problems.sizes", {"train": 3}, r"unknown train; known: sft, rl"),
    ("problems.source", "web", r"problems: .*'web'"),
    ("runtime.nodes", 2, r"needs runtime\.rendezvous"),
    ("sft", 3, r"sft: .*got 3"),
]


@pytest.mark.parametrize(
    ("key", "value", "message"), WRONG, ids=[f"{key}={value}" for key, value, _ in WRONG]
)
def test_what_is_wrong_is_named_with_what_was_found(key: str, value: Any, message: str):
    with pytest.raises(UsageError, match=message) as raised:
        load_config("smoke", {key: value})
    assert str(raised.value).startswith(f"{CONFIGS / 'smoke.yaml'}:\n")
    assert raised.value.exit_code == 2


def test_every_wrong_setting_is_listed():
    with pytest.raises(UsageError) as raised:
        load_config("smoke", {"sft.epochs": "many", "colour": "red"})
    assert "sft.epochs" in str(raised.value)
    assert "colour" in str(raised.value)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("sft.epochs", "expected KEY=VALUE"),
        ("=3", "expected KEY=VALUE"),
        ("sft.epochs=[1", "the value is not YAML"),
        ("rounds.number=3", "rounds holds a single value"),
    ],
)
def test_a_bad_override_is_quoted(item: str, message: str):
    with pytest.raises(UsageError, match=message) as raised:
        load_config("smoke", parse_overrides([item]))
    assert item.partition("=")[0] in str(raised.value)


@pytest.mark.parametrize("content", [b"sft: [1", b"- a\n- b\n", b"just text", b"\xff\xfe\x00"])
def test_a_file_that_is_no_config_is_named(tmp_path: Path, content: bytes):
    path = tmp_path / "broken.yaml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"broken\.yaml"):
        load_config(str(path))


def test_pretrained_weights_need_isolation():
    settings = {"model.base": "some/model", "runtime.backend": "process"}
    with pytest.raises(UsageError, match=r"isolates nothing.*use backend .*bubblewrap"):
        load_config("smoke", settings)
    assert load_config("smoke", settings | {"runtime.backend": "bubblewrap"})
    assert load_config("smoke", settings | {"runtime.allow_no_isolation": True})


def test_a_config_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        RunConfig().seed = 2  # type: ignore[misc]
