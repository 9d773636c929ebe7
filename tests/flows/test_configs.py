"""Runs the whole flow of every shipped config for larger machines, at tiny sizes (`tests.shrink`)."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from selftrain.configfile import CONFIGS, load_config
from selftrain.plan.corpus import corpus_of
from tests.command import Finished, PrefectServer, selftrain
from tests.selftrain.problems.made import py_row, write_jsonl
from tests.shrink import description, make_hub, shrink

TRAINED = [("mbpp", at) for at in range(200, 224)]
EVALUATED = [("humaneval", at) for at in range(300, 304)]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders for what the configs name on the hub."""
    return make_hub(tmp_path_factory.mktemp("hub"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for all: what two configs have in common is made once."""
    return tmp_path_factory.mktemp("store")


def finished(name: str, places: dict[str, Path], store: Path, folder: Path) -> Finished:
    """The whole flow of the config called `name`, shrunk."""
    config = shrink(load_config(name), places, store, rounds=1)
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    cache = {"HF_DATASETS_CACHE": str(folder / "datasets")}
    done = selftrain("run", str(path), "--out", str(folder / "out"), **cache)
    assert done.returncode == 0, done.stderr[-6000:]
    return Finished(store, folder / "out", done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("name", "counts", "examples"),
    [
        # 13,328 tasks to train on: 0.6, 0.37 and 0.03 of them in eight languages; with answers in three
        ("paper-6.7b", {"sft": 8 * 7997, "rl": 8 * 4931, "validation": 8 * 400, "test": 8 * 160}, 3 * 7997),
        # 3,000 tasks in three languages to learn from, 390 in eight to sample for: 0.85 and 0.15 of them
        (
            "qwen2.5-coder-0.5b",
            {"sft": 3 * 3000, "rl": 8 * 332, "validation": 8 * 58, "test": 8 * 160},
            3 * 3000,
        ),
        (
            "qwen2.5-coder-0.5b-instruct",
            {"sft": 3 * 3000, "rl": 8 * 332, "validation": 8 * 58, "test": 8 * 160},
            3 * 3000,
        ),
    ],
)
def test_the_problems_on_the_hub_are_counted_by_their_published_sizes(
    name: str, counts: dict[str, int], examples: int
):
    corpus = corpus_of(load_config(name))
    assert {split: corpus.count(split) for split in corpus.counts} == counts
    assert corpus.examples == examples


def test_prompts_and_answers_of_a_chat_model_are_longer():
    plain, chat = (corpus_of(load_config(f"qwen2.5-coder-0.5b{kind}")) for kind in ("", "-instruct"))
    assert (plain.learnt, plain.prompts["rl"]) == ([(650, 450)], [140])
    assert (chat.learnt, chat.prompts["rl"]) == ([(650 + 60, 650 + 450)], [140 + 60])


def exported(run: Finished, name: str) -> dict[str, Any]:
    """config.json of the model that the stage called `name` left."""
    return json.loads((run.folder(name) / "config.json").read_text())


def check(run: Finished, trunk: str) -> None:
    """Check that all stages of one round are there, with models of the classes that have `trunk` in their names."""
    assert {"execute-sft-evaluation", "execute-ppo-1-evaluation"} <= set(run.stages)
    assert list(run.stages)[-2:] == ["evaluate", "report"]
    assert run.manifest("sft")["metrics"]["parameters"] < 150_000
    for name in ("sft", "ppo-1"):
        assert exported(run, name)["architectures"] == [f"{trunk}ForCausalLM"]
    assert exported(run, "rm-1")["architectures"] == [f"{trunk}ForSequenceClassification"]
    assert run.manifest("mine-1")["metrics"]["pairs"] > 0
    assert set(run.report["pools"]) == {"sft", "ppo-1"}


@pytest.mark.parametrize(
    ("name", "trunk"),
    [("paper-6.7b", "Llama"), ("paper-1.3b", "Llama"), ("qwen2.5-coder-0.5b", "Qwen2")],
)
def test_a_config_for_gpus_runs_its_whole_flow_shrunk(
    server: PrefectServer,
    places: dict[str, Path],
    store: Path,
    tmp_path: Path,
    name: str,
    trunk: str,
):
    run = finished(name, places, store, tmp_path)
    check(run, trunk)
    said = json.loads((run.out / "run.json").read_text())["config"]["runtime"]["deepspeed"]
    assert said == (str(CONFIGS / "deepspeed" / "zero3.json") if name.startswith("paper") else None)
    if trunk == "Llama":
        rope = exported(run, "sft")["rope_parameters"]
        assert (rope["rope_type"], rope["factor"]) == ("linear", 4.0)


def test_the_config_of_the_nightly_deployment_runs_its_whole_flow_shrunk(
    server: PrefectServer, store: Path, tmp_path: Path
):
    check(finished("prod", {}, store, tmp_path), "Llama")


def test_the_config_without_sft_and_ppo_runs_on_files_of_problems(
    server: PrefectServer, places: dict[str, Path], store: Path, tmp_path: Path
):
    rows = [py_row(f"{kind}_{at}", description(at)) for kind, at in (*TRAINED, *EVALUATED)]
    train = write_jsonl(tmp_path / "train.jsonl", rows[: len(TRAINED)])
    evaluation = write_jsonl(tmp_path / "evaluation.jsonl", rows[len(TRAINED) :])
    settings = {
        "problems.train": train, "problems.evaluation": evaluation, "model.base": places["Qwen/Qwen2.5-Coder-0.5B"],
        "store": store, "sample.rl": 6, "sample.evaluation": 4, "sample.max_new_tokens": 32, "sample.shard": 8,
        "reward.layers": 1, "reward.max_tokens": 256, "reward.batch_size": 4, "evaluate.agreement": 2, "evaluate.bootstrap": 50,
        "runtime.processes": 1, "runtime.backend": "process", "runtime.allow_no_isolation": True,
    }  # fmt: skip
    options = [text for name, value in settings.items() for text in ("--set", f"{name}={value}")]
    done = selftrain("run", "qwen2.5-coder-0.5b-instruct-cpu", *options, "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr[-6000:]
    run = Finished(store, tmp_path / "out", done.stdout, done.stderr)
    assert run.manifest("prepare")["metrics"]["problems"]["sft"] == 0
    assert run.manifest("sft")["metrics"]["examples"] == 0
    assert exported(run, "rm-1")["num_hidden_layers"] == 1
    assert not [name for name in run.stages if name.startswith("ppo")]
    assert {"rm-1", "agreement"} <= set(run.report["pools"]["sft"]["overall"]["rankers"])
