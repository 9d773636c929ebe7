"""Tests of the checks of pretrained models before training: by config, by tokenizer, and with a miniature of the model."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from selftrain.config import RunConfig, RuntimeConfig
from selftrain.errors import UsageError
from selftrain.launch.launch import Child
from selftrain.models.models import load_classifier, load_tokenizer
from selftrain.plan.suitable import check
from selftrain.store.store import Store
from selftrain.training import reward
from tasks.run import Run
from tasks.suitable import check_models
from tests.command import selftrain
from tests.selftrain.training.made import reward_job

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 96,
}
GPT = {"n_positions": 96, "n_embd": 32, "n_layer": 3, "n_head": 4}
NO_CT2 = "ctranslate2 cannot sample from .*set sample.engine=hf"
ARCHITECTURES: dict[str, tuple[str, dict[str, Any], str | None, str | None]] = {
    # name -> config, sizes, what is told with engine ctranslate2 and with hf
    "gpt2": ("GPT2Config", GPT, None, None),
    "gptj": ("GPTJConfig", GPT | {"rotary_dim": 8}, None, None),
    "padded": ("MistralConfig", SMALL | {"num_key_value_heads": 2, "vocab_size": 512}, None, None),
    "mistral": ("MistralConfig", SMALL | {"num_key_value_heads": 2}, None, None),
    "gemma": ("GemmaConfig", SMALL | {"num_key_value_heads": 2, "head_dim": 8}, None, None),
    "phi": ("PhiConfig", SMALL, NO_CT2, None),
    "neox": ("GPTNeoXConfig", SMALL, NO_CT2, None),
    "starcoder2": ("Starcoder2Config", SMALL | {"num_key_value_heads": 2}, NO_CT2, None),
    "gemma2": ("Gemma2Config", SMALL | {"num_key_value_heads": 2, "head_dim": 8}, "PPO cannot train", "PPO cannot train"),
    "codegen": ("CodeGenConfig", GPT | {"rotary_dim": 8}, "no reranker of a codegen", "no reranker of a codegen"),
}  # fmt: skip


def make(folder: Path, generator: Path, kind: str, sizes: dict[str, Any], **more: Any) -> Path:
    """A model of random weights with the tiny generator's tokenizer."""
    tokenizer = load_tokenizer(generator)
    ids = {
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = getattr(transformers, kind)(**{"vocab_size": len(tokenizer)} | ids | sizes | more)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def config(base: Path, **changes: Any) -> RunConfig:
    """A run on `base`, all of whose lengths fit into 96 tokens."""
    parts: dict[str, dict[str, Any]] = {
        "model": {"base": str(base)}, "sft": {"max_tokens": 96}, "reward": {"max_tokens": 96},
        "sample": {"max_new_tokens": 16, "engine": "hf"}, "runtime": {"backend": "docker"},
    }  # fmt: skip
    for name, value in changes.items():
        part, _, field = name.partition("__")
        parts.setdefault(part, {})[field] = value
    return RunConfig.model_validate(parts)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_works_or_is_told(tmp_path: Path, generator: Path, name: str):
    kind, sizes, with_ct2, with_hf = ARCHITECTURES[name]
    base = make(tmp_path, generator, kind, sizes)
    for engine, told in (("ctranslate2", with_ct2), ("hf", with_hf)):
        if told is None:
            check(config(base, sample__engine=engine))
        else:
            with pytest.raises(UsageError, match=told):
                check(config(base, sample__engine=engine))


@pytest.mark.parametrize(
    ("kind", "sizes"), [("GPTNeoXConfig", SMALL), ("PhiConfig", SMALL), ("GPT2Config", GPT)]
)
def test_a_reranker_learns_by_its_tokens_whatever_its_final_norm_is_called(
    tmp_path: Path, generator: Path, kind: str, sizes: dict[str, Any]
):
    base = make(tmp_path / "base", generator, kind, sizes)
    job = reward_job(tmp_path / "rm", base, RuntimeConfig(processes=1), epochs=1, token_loss=1.0)
    found = reward.train(Child.model_validate(job["child"]))
    assert found.metrics["loss"] > 0
    assert load_classifier(tmp_path / "rm").config.num_labels == 1


def test_a_tokenizer_that_is_larger_than_the_embedding_is_told_with_both_numbers(
    tmp_path: Path, generator: Path
):
    base = make(tmp_path / "base", generator, "LlamaConfig", SMALL)
    check(config(base))
    tokenizer = load_tokenizer(base)
    size = len(tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<one>", "<two>"]})
    tokenizer.save_pretrained(base)
    with pytest.raises(
        UsageError, match=rf"model\.base: .*has {size + 2} tokens \('<two>' .* embedding {size} rows"
    ):
        check(config(base))
    wide = make(tmp_path / "wide", generator, "LlamaConfig", SMALL, vocab_size=size + 64)
    check(config(wide))
    with pytest.raises(UsageError, match=r"reward\.base: .*embedding \d+ rows"):
        check(config(wide, reward__base=str(base)))


def test_an_end_token_without_a_row_is_told(tmp_path: Path, generator: Path):
    base = make(tmp_path, generator, "LlamaConfig", SMALL)
    content = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(content | {"eos_token_id": [1, 5000]}))
    with pytest.raises(
        UsageError, match=r"config\.json has eos_token_id 5000, and the model's embedding \d+ rows"
    ):
        check(config(base))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"sft__max_tokens": 97}, "sft.max_tokens is 97, and the longest input of the model is 96"),
        ({"reward__max_tokens": 200}, "reward.max_tokens is 200, .* 96"),
        ({"sample__max_new_tokens": 96}, "sample.max_new_tokens is 96, .* 96"),
    ],
)
@pytest.mark.parametrize("kind", ["GPT2Config", "LlamaConfig"])
def test_lengths_beyond_the_positions_are_told_with_both_numbers(
    tmp_path: Path, generator: Path, kind: str, changes: dict[str, Any], told: str
):
    base = make(tmp_path, generator, kind, GPT if kind == "GPT2Config" else SMALL)
    with pytest.raises(UsageError, match=told):
        check(config(base, **changes))


def test_layers_that_a_reranker_cannot_keep_are_told(tmp_path: Path, generator: Path):
    base = make(tmp_path / "llama", generator, "MistralConfig", SMALL | {"num_key_value_heads": 2})
    check(config(base, reward__layers=3))
    with pytest.raises(UsageError, match=r"reward\.layers is 4, and the model has 3 layers"):
        check(config(base, reward__layers=4))
    base = make(tmp_path / "gpt", generator, "GPT2Config", GPT)
    check(config(base))
    with pytest.raises(UsageError, match=r"reward\.layers: the layers of a GPT2Model are not known"):
        check(config(base, reward__layers=2))


def test_a_tiny_models_layers_are_counted_too(tmp_path: Path):
    settings = {"model": {"layers": 2}, "reward": {"layers": 3}}
    with pytest.raises(UsageError, match=r"reward\.layers is 3, and the model has 2 layers"):
        check_models(Run(RunConfig.model_validate(settings), Store(str(tmp_path / "store"))))


def test_scaled_positions_reach_further(tmp_path: Path, generator: Path):
    scaled = {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}}
    check(config(make(tmp_path, generator, "LlamaConfig", SMALL | scaled), sft__max_tokens=300))


def test_a_reranker_whose_config_does_not_say_how_many_labels_is_taken_by_its_head(
    tmp_path: Path, reranker: Path
):
    def without_number(folder: Path, rows: int) -> Path:
        shutil.copytree(reranker, folder)
        model = load_classifier(reranker)
        model.score = torch.nn.Linear(model.config.hidden_size, rows, bias=False)
        model.save_pretrained(folder)
        content = json.loads((folder / "config.json").read_text())
        for name in ("num_labels", "id2label", "label2id"):
            content.pop(name, None)
        (folder / "config.json").write_text(json.dumps(content))
        return folder

    one = without_number(tmp_path / "one", 1)
    assert load_classifier(one).score.weight.shape[0] == 1
    assert load_classifier(one, fresh_head=None).score.weight.shape[0] == 1
    with pytest.raises(UsageError, match=r"expected one label .*num_labels=3"):
        load_classifier(without_number(tmp_path / "three", 3))


def test_a_dry_run_and_a_plan_say_it_too(tmp_path: Path, generator: Path):
    base = make(tmp_path / "base", generator, "GPTNeoXConfig", SMALL)
    settings = [
        f"model.base={base}",
        "sft.max_tokens=96",
        "reward.max_tokens=96",
        "runtime.allow_no_isolation=true",
        f"store={tmp_path / 'store'}",
    ]
    arguments = ["smoke", *(word for setting in settings for word in ("--set", setting))]
    for command in (["run", *arguments, "--dry-run"], ["plan", *arguments]):
        done = selftrain(*command)
        assert done.returncode == 2, done.stderr[-2000:]
        assert "ctranslate2 cannot sample from a GPTNeoXForCausalLM" in done.stderr
        assert "Traceback" not in done.stderr
