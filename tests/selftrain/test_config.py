"""Tests of configs: shipped configs load, and error messages name the wrong setting."""

import json
from pathlib import Path
from typing import Any

import pytest

from sandbox.languages import LANGUAGES, READ_ONLY
from selftrain.config import STORE_VARIABLE, RunConfig, default_store
from selftrain.configfile import CONFIGS, find_config, load_config, parse_overrides
from selftrain.errors import UsageError
from selftrain.rerank.places import find_champion
from selftrain.studyfile import read_study

SHIPPED = sorted(CONFIGS.rglob("*.y*ml"))


def test_every_shipped_config_is_found():
    names = {path.relative_to(CONFIGS).as_posix() for path in SHIPPED}
    assert {
        "demo.yaml", "paper-1.3b.yaml", "paper-6.7b.yaml", "prod.yaml", "qwen2.5-coder-0.5b.yaml",
        "qwen2.5-coder-0.5b-instruct.yaml", "qwen2.5-coder-0.5b-instruct-cpu.yaml", "smoke.yaml", "smollm2-135m.yaml",
        "studies/evidence.yaml",
    } <= names  # fmt: skip
    found = [path for path in CONFIGS.rglob("*") if path.is_file() and path.suffix != ".json"]
    assert len(SHIPPED) == len(found), "every file but DeepSpeed's JSON is a config or a study"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.relative_to(CONFIGS).as_posix())
def test_every_shipped_config_loads(path: Path):
    study = path.parent.name == "studies"
    config = read_study(str(path)).config if study else load_config(str(path))
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


def test_a_deepspeed_file_is_found_by_path_beside_the_config_or_by_the_name_of_a_shipped_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def found(name: str) -> str | None:
        return load_config(
            str(tmp_path / "configs" / "mine.yaml"), {"runtime.deepspeed": name}
        ).runtime.deepspeed

    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "mine.yaml").write_text("seed: 7\n")
    monkeypatch.chdir(tmp_path)
    assert found("zero3") == str(CONFIGS / "deepspeed" / "zero3.json")
    (tmp_path / "configs" / "own.json").write_text("{}")
    assert found("own.json") == str(tmp_path / "configs" / "own.json")
    (tmp_path / "own.json").write_text("{}")
    assert found("own.json") == str(tmp_path / "own.json")
    with pytest.raises(
        UsageError, match=r"no file 'zero9' here or in .*configs; .*one of: zero1, zero2, zero3"
    ):
        found("zero9")
    assert load_config("smoke").runtime.deepspeed is None


@pytest.mark.parametrize("path", sorted((CONFIGS / "deepspeed").glob("*.json")), ids=lambda path: path.stem)
def test_a_shipped_deepspeed_file_leaves_the_batch_sizes_to_the_config(path: Path):
    content = json.loads(path.read_text())
    assert content["zero_optimization"]["stage"] == int(path.stem.removeprefix("zero")[0])
    assert ("offload_optimizer" in content["zero_optimization"]) == path.stem.endswith("offload")
    for name in ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"):
        assert content[name] == "auto"


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
    ("sft.epochs", -1, r"sft\.epochs: .*greater than or equal to 0; got -1"),
    ("sft.epochs", 0, r"sft\.epochs is 0, and the model has random weights"),
    ("rounds", 0, r"rounds: .*greater than or equal to 1; got 0"),
    (
        "rounds",
        10**9,
        r"rounds: expected at most 1,000, got 1,000,000,000: the stages of all rounds are planned",
    ),
    ("promotion.max_rounds", 1001, r"promotion\.max_rounds: expected at most 1,000, got 1,001"),
    (
        "evaluate.bootstrap",
        10**12,
        r"evaluate\.bootstrap: expected at most 100,000, got 1,000,000,000,000: all are held in memory",
    ),
    ("evaluate.agreement", 10**5, r"evaluate\.agreement: expected at most 1,000, got 100,000"),
    ("evaluate.agreement", -1, r"evaluate\.agreement: .*greater than or equal to 0; got -1"),
    ("problems.tests", 10**9, r"problems\.tests: expected at most 1,000"),
    (
        "runtime.workers",
        10**9,
        r"runtime\.workers: expected at most 4,096, got 1,000,000,000: all of them start on one machine",
    ),
    ("runtime.processes", 5000, r"runtime\.processes: expected at most 4,096"),
    ("runtime.threads", 10**400, r"runtime\.threads: expected at most 4,096"),
    ("rounds", 1.5, r"rounds: .*integer.*got 1\.5"),
    ("seed", -1, r"seed: .*got -1"),
    ("name", "../up", r"name: .*got '\.\./up'"),
    ("sample.engine", "magic", r"sample\.engine: .*'ctranslate2', 'hf', 'vllm' or 'openai'.*got 'magic'"),
    ("sample.temperature", float("nan"), r"sample\.temperature: .*finite.*got nan"),
    ("mine.threshold", float("nan"), r"mine\.threshold: .*finite.*got nan"),
    ("mine.threshold", float("inf"), r"mine\.threshold: .*finite.*got inf"),
    ("problems.shares", {"sft": float("nan")}, r"problems\..*shares\.sft: .*got nan"),
    ("problems.languages", ["py", "cobol"], r"unknown language 'cobol'; known: py, cpp"),
    ("problems.sizes", {"train": 3}, r"unknown train; known: sft, rl"),
    ("problems.source", "web", r"problems.source: .*'web'"),
    ("runtime.nodes", 2, r"needs runtime\.rendezvous"),
    ("sft", 3, r"sft: .*got 3"),
]


@pytest.mark.parametrize(
    ("key", "value", "message"), WRONG, ids=[f"{key}={value}" for key, value, _ in WRONG]
)
def test_what_is_wrong_is_named_with_what_was_found(key: str, value: Any, message: str):
    with pytest.raises(UsageError, match=message) as raised:
        load_config("smoke", {key: value})
    assert str(raised.value).startswith(f"{CONFIGS / 'smoke.yaml'}: ")
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
        ("rounds.number=3", "rounds is a single value"),
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


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"seed: 1\nsft: {epochs: 1}\nseed: 2\n", "'seed' is there twice; take one out (line 3, column 1)"),
        (b"sft:\n  epochs: 1\n  epochs: 3\n", "'epochs' is there twice; take one out (line 3, column 3)"),
        (b"sft:\n\tepochs: 1\n", "(line 2, column 1); indent with blanks, not with tabs"),
        ("name: caf\u00e9\n".encode("latin-1"), "save the file as UTF-8"),
        (b"seed: !!int abc\n", "a value that is not of its type"),
        (b"seed: !!timestamp abc\n", "a value that is not of its type"),
        (b"seed: " + b"9" * 5000, "a value that is not of its type"),
        (b"sft: " + b"[" * 3000, "it is nested too deeply"),
        (b"problems:\n", "problems: expected settings below it (source, "),
        (b"problems: bank\n", "problems: expected settings below it (source, "),
        (b"problems: {source: mixed, parts: [null]}\n", "problems.parts.0: expected settings below it ("),
        (b"problems: {source: mixed, parts: [{source: mixed}]}\n", "'mixed'; known: bank, contests, jsonl, multipl-e"),
        (b"sft:\n", "sft: expected settings below it (epochs, "),
        (b"problems: {languages: py}\n", "expected a list, such as problems.languages: [py], got 'py'"),
        (b"problems: {source: jsonl, files: ''}\n", "problems.files.0: Value should have at least 1 item"),
        (b"rounds: yes\n", "rounds: Input should be a valid integer"),
        (b"sft: {epochs: 1:30}\n", "sft.epochs: Input should be a valid number"),
        (b"model: {heads: 3}\n", "hidden_size 128 is not a multiple of 6, twice heads"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_file_is_told_in_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    with pytest.raises(UsageError) as raised:
        load_config(str(path))
    assert said in str(raised.value)
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)


def test_plain_words_are_texts_where_a_setting_is_a_text(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "\ufeffname: 2026-01-05\nppo: {keep_best: off, whiten_rewards: yes}\nexecute: {audit: off}\n"
    )
    config = load_config(str(path), parse_overrides(["sft.learning_rate=3e-3", "seed=1_000"]))
    assert (config.name, config.execute.audit, config.seed) == ("2026-01-05", "off", 1000)
    assert (config.ppo.keep_best, config.ppo.whiten_rewards, config.sft.learning_rate) == (False, True, 0.003)
    files = parse_overrides(["problems={source: jsonl, files: x.jsonl, check: off}"])
    assert getattr(load_config("smoke", files).problems, "check", None) == "off"
    merged = "sft: &one {epochs: 1, batch_size: 8}\nreward: {<<: *one, batch_size: 4}\n"
    path.write_text(merged)
    assert load_config(str(path)).reward.batch_size == 4


def test_a_leading_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    settings = {"store": "~/store", "model.base": "~/models/own", "problems.source": "jsonl", "problems.files": "~/own.jsonl"}  # fmt: skip
    config = load_config("smoke", settings | {"runtime.backend": "docker"})
    assert (config.store, config.model.base) == ("/home/me/store", "/home/me/models/own")
    assert getattr(config.problems, "files", None) == ("/home/me/own.jsonl",)
    monkeypatch.setenv("SELFTRAIN_STORE", "~/other")
    assert default_store() == "/home/me/other"


@pytest.mark.parametrize("setting", ["config", "runtime.deepspeed"])
def test_a_name_that_no_file_can_have_is_refused(setting: str) -> None:
    name = "a" * 5000
    with pytest.raises(UsageError, match=f"no (config|file) '{name}'"):
        load_config(name) if setting == "config" else load_config("smoke", {setting: name})


def test_pretrained_weights_need_isolation():
    settings = {"model.base": "some/model", "runtime.backend": "process"}
    with pytest.raises(UsageError, match=r"isolates nothing.*use backend .*bubblewrap"):
        load_config("smoke", settings)
    assert load_config("smoke", settings | {"runtime.backend": "bubblewrap"})
    assert load_config("smoke", settings | {"runtime.allow_no_isolation": True})


def test_a_config_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        RunConfig().seed = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "sft.epoch",
            3,
            r"sft\.epoch: no such setting; did you mean sft\.epochs\?; there are: epochs, batch_size,",
        ),
        ("epochs", 3, r"did you mean sft\.epochs or reward\.epochs or ppo\.epochs\?"),
        ("runtime.store", "runs/store", r"runtime\.store: no such setting; did you mean store\?"),
        ("problem.source", "jsonl", r"did you mean problems\?"),
        ("reward.lora.rnk", 3, r"did you mean reward\.lora\.rank\?; there are: rank, alpha, dropout"),
        (
            "problems.familys",
            "list",
            r"problems\.familys: no such setting; did you mean problems\.families\?",
        ),
        (
            "problems.languages",
            ["pyton"],
            r"problems.*: languages: unknown language 'pyton'; did you mean python\?; known: py, cpp,",
        ),
        ("problems.languages", ["C+"], r"unknown language 'C\+'; did you mean c\+\+\?; known: py, cpp,"),
        ("problems.languages", ["rust"], r"this source are not written in language 'rs'; known: py, .*, js$"),
        (
            "problems.source",
            "json",
            r"problems\.source: unknown source 'json'; did you mean jsonl\?; known: bank,",
        ),
        (
            "problems.source",
            "jsonl",
            r"problems\.files: missing; .*--set problems\.files=VALUE",
        ),
        ("xyzzy", 1, r"xyzzy: no such setting; there are: name, seed,"),
    ],
)
def test_what_may_have_been_meant_is_said(key: str, value: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_config("smoke", {key: value})


def test_another_source_needs_nothing_of_the_old_one() -> None:
    config = load_config("smoke", {"problems.files": "mine.jsonl", "problems.source": "jsonl"})
    assert config.problems.source == "jsonl"
    assert config.problems.files == ("mine.jsonl",)
    assert load_config("smoke", {"problems.source": "bank"}).problems.sizes["sft"] == 60


def outside(source: str, *languages: str) -> RunConfig:
    """A run on problems of that source in those languages."""
    files = {"files": ["f.jsonl"]} if source == "jsonl" else {"evaluation": ["f.jsonl"]}
    problems = {"source": source, "languages": list(languages)} | files
    return RunConfig.model_validate(load_config("smoke").model_dump() | {"problems": problems})


@pytest.mark.parametrize("source", ["jsonl", "multipl-e"])
def test_a_language_goes_by_any_of_its_names(source: str) -> None:
    for row in LANGUAGES.values():
        for name in (*row.names, row.title):
            assert outside(source, name).problems.languages == (row.name,)
    assert (
        load_config("smoke", {"problems.languages": ["Python", "bash"]}).problems
        == load_config("smoke").problems
    )
    with pytest.raises(ValueError, match="none twice"):
        outside(source, "py", "python3")
    with pytest.raises(
        ValueError, match=r"unknown language 'elixr'; did you mean elixir\?; known: py, .*, clj "
    ):
        outside(source, "elixr")


@pytest.mark.parametrize("name", READ_ONLY)
def test_a_language_that_cannot_be_run_is_refused(name: str) -> None:
    for source in ("jsonl", "multipl-e", "contests"):
        for text in (name, *READ_ONLY[name]):
            with pytest.raises(
                ValueError, match=f"language '{name}' can be read .* not run; known: py, cpp, "
            ):
                outside(source, text)
    with pytest.raises(UsageError, match=f"language '{name}' can be read .* not run; known: py, cpp, "):
        load_config("smoke", {"problems.languages": [name]})


def test_the_environment_names_the_store_of_what_names_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(STORE_VARIABLE, raising=False)
    assert load_config("smoke").store == default_store() == "runs/store"
    monkeypatch.setenv(STORE_VARIABLE, "s3://bucket/store")
    assert load_config("smoke").store == default_store() == "s3://bucket/store"
    assert load_config("smoke", {"store": "elsewhere"}).store == "elsewhere"
    (tmp_path / "own.yaml").write_text("store: own\n")
    assert load_config(str(tmp_path / "own.yaml")).store == "own"
    monkeypatch.setenv(STORE_VARIABLE, "")
    assert load_config("smoke").store == default_store() == "runs/store"
    monkeypatch.setenv(STORE_VARIABLE, str(tmp_path / "nothing"))
    with pytest.raises(UsageError, match="nothing: no store is there"):
        find_champion("champion")


def test_a_name_that_a_file_gives_and_that_is_none_is_told_with_what_to_do(tmp_path: Path):
    path = tmp_path / "my config.yaml"
    path.write_text("rounds: 1\n")
    with pytest.raises(
        UsageError,
        match=r"my config\.yaml: name: made from the file's name, 'my config', .*rename the file, or set",
    ):
        load_config(str(path))
    assert load_config(str(path), {"name": "mine"}).name == "mine"
    path.write_text("name: a b\n")
    with pytest.raises(UsageError, match="name: String should match pattern"):
        load_config(str(path))
