"""The stage through its real child processes: one process, a killed one, two ranks under torchrun."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

import selftrain
from selftrain.config import ModelConfig, PPOConfig, RuntimeConfig
from selftrain.errors import DataError, UsageError
from selftrain.launch import Child
from selftrain.models import make_tiny, train_tokenizer
from selftrain.records import Problem, write_records
from selftrain.stage import Build, plain
from selftrain.stages.ppo import PPO, PPOSlice

CONFIG = PPOSlice(
    seed=3,
    ppo=PPOConfig(
        steps=5, rollout_batch=8, mini_batch=4, micro_batch=2, checkpoint_steps=2, learning_rate=1e-3
    ),
    max_new_tokens=10,
)
PROMPTS = [f"add {i} to every number of the list and return it\n" for i in range(12)]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Problems, an untrained generator and an untrained reranker with the same tokenizer."""
    root = tmp_path_factory.mktemp("ppo")
    folders = {name: root / name for name in ("problems", "generator", "reranker")}
    for folder in folders.values():
        folder.mkdir()
    problems = [
        Problem(
            f"p{i}",
            f"p{i}",
            ("py", "sh")[i % 2],
            prompt,
            tests="",
            split=("rl", "rl", "test")[i % 3],
            source="bank",
        )
        for i, prompt in enumerate(PROMPTS)
    ]
    write_records(folders["problems"] / "problems.parquet", problems, Problem)
    tokenizer = train_tokenizer(PROMPTS, 280)
    torch.manual_seed(0)
    generator = make_tiny(ModelConfig(hidden_size=16, layers=1, heads=2, max_tokens=64), tokenizer)
    judge = LlamaConfig(**{**generator.config.to_dict(), "num_labels": 1, "architectures": None})
    generator.save_pretrained(folders["generator"])
    LlamaForSequenceClassification(judge).save_pretrained(folders["reranker"])
    for name in ("generator", "reranker"):
        tokenizer.save_pretrained(folders[name])
    return folders


def build(inputs, folder, processes=1, config=CONFIG):
    """The stage's own build; its outcome and the steps that it reported."""
    folder.mkdir(exist_ok=True)
    steps = []
    runtime = RuntimeConfig(processes=processes)
    outcome = PPO.build(
        Build(config, inputs, folder, runtime, lambda done, *rest, **more: steps.append(done))
    )
    return outcome, steps


@pytest.fixture(scope="module")
def undisturbed(inputs, tmp_path_factory):
    """Folder and outcome of a run in one process."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, build(inputs, folder)[0]


def test_writes_a_policy_that_plain_transformers_loads(inputs, undisturbed):
    folder, outcome = undisturbed
    policy, start = (AutoModelForCausalLM.from_pretrained(f) for f in (folder, inputs["generator"]))
    moved = [(a - b).abs().max() for a, b in zip(policy.parameters(), start.parameters(), strict=True)]
    assert min(moved) > 1e-3
    assert set(load_file(folder / "model.safetensors")) == set(
        load_file(inputs["generator"] / "model.safetensors")
    )
    assert (
        AutoTokenizer.from_pretrained(folder).get_vocab()
        == AutoTokenizer.from_pretrained(inputs["generator"]).get_vocab()
    )
    assert not [path for path in folder.rglob("*") if path.suffix in {".bin", ".pt", ".pkl", ".pth"}]
    metrics = outcome.metrics
    assert metrics["prompts"] == 8  # the rl split, in all languages
    assert [row["step"] for row in metrics["curve"]] == [1, 2, 3, 4, 5]
    assert set(metrics["curve"][0]) == {
        "step", "reward", "score", "kl", "entropy", "policy_loss", "value_loss", "clip_fraction", "kl_coefficient",
        "tokens", "missing_end",
    }  # fmt: skip
    assert abs(metrics["curve"][0]["kl"]) < 1e-5
    assert set(metrics["seconds"]) == {"rollout", "score", "reference", "update"}
    samples = json.loads((folder / "samples.json").read_text())
    assert {row["step"] for row in samples} == {1, 2, 3, 4, 5}
    assert all(row["prompt"].removesuffix("<sep>") in PROMPTS for row in samples)


def test_killed_in_the_middle_it_ends_with_the_same_weights(inputs, undisturbed, tmp_path):
    private = tmp_path / "progress"
    private.mkdir()
    content = {
        "config": plain(CONFIG, "config"),
        "inputs": {name: str(path) for name, path in inputs.items()},
        "folder": str(tmp_path),
        "runtime": plain(RuntimeConfig(processes=1), "runtime"),
        "extra": {},
    }
    (private / "resolved.json").write_text(json.dumps(content))
    child = subprocess.Popen(
        [sys.executable, "-m", "selftrain.training.ppo", str(private / "resolved.json")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(selftrain.__path__[0]).parent)},
    )
    with child:
        for line in child.stdout:
            if line.startswith('@progress {"done": 3'):
                child.send_signal(signal.SIGKILL)
                break
    assert child.returncode == -signal.SIGKILL
    assert not (private / "outcome.json").exists()
    assert (private / "checkpoints" / "step-2").is_dir()

    outcome, steps = build(inputs, tmp_path)
    assert steps[0] >= 3, "it must go on from its checkpoint, not start again"
    expected_folder, expected = undisturbed
    assert outcome.records_digest == expected.records_digest
    assert outcome.metrics["curve"] == expected.metrics["curve"]
    for name in ("model.safetensors", "samples.json"):
        assert (tmp_path / name).read_bytes() == (expected_folder / name).read_bytes()


def test_two_ranks_do_what_one_process_does(inputs, undisturbed, tmp_path):
    folder, outcome = undisturbed
    shared, steps = build(inputs, tmp_path, processes=2)
    assert steps == [1, 2, 3, 4, 5]
    first = [json.loads((f / "samples.json").read_text())[:4] for f in (tmp_path, folder)]
    for ours, theirs in zip(*first, strict=True):
        assert ours["completion"] == theirs["completion"]
        assert ours["score"] == pytest.approx(theirs["score"], abs=1e-5)
    for ours, theirs in zip(shared.metrics["curve"], outcome.metrics["curve"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-4)


def train_here(config, inputs, folder):
    """The child's work in this process: enough for what is refused before anything is trained."""
    from selftrain.training.ppo import train

    return train(
        Child(
            config=plain(config, "config"),
            inputs=inputs,
            folder=folder,
            runtime=plain(RuntimeConfig(processes=1), "runtime"),
            extra={},
        )
    )


def test_no_prompt_to_sample_from(inputs, tmp_path):
    config = CONFIG.model_copy(update={"max_new_tokens": 64})
    with pytest.raises(
        DataError, match="none of the 8 problems of the rl split has a prompt of 1 to 0 tokens"
    ):
        train_here(config, inputs, tmp_path)


def test_tokenizers_that_differ(inputs, tmp_path):
    other = tmp_path / "reranker"
    LlamaForSequenceClassification.from_pretrained(inputs["reranker"]).save_pretrained(other)
    train_tokenizer(["other text"], 270).save_pretrained(other)
    with pytest.raises(UsageError, match="the tokenizers of .* differ"):
        train_here(CONFIG, {**inputs, "reranker": other}, tmp_path)


def test_a_generator_in_the_rerankers_place(inputs, tmp_path):
    with pytest.raises(UsageError, match="expected a sequence classifier"):
        train_here(CONFIG, {**inputs, "reranker": inputs["generator"]}, tmp_path)
