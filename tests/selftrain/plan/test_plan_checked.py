"""The plan against what really happens, on a model small enough for every run of the tests; `make bench` has larger ones."""

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, GPTNeoConfig, Qwen2Config

from selftrain.config import BankConfig, ModelConfig, RunConfig, RuntimeConfig
from selftrain.models.models import make_tiny
from selftrain.models.shapes import Shape, shape_by, shape_of
from selftrain.plan import calibrate as calibration
from selftrain.plan.calibrate import Sizes
from selftrain.plan.corpus import Corpus, corpus_of
from selftrain.plan.plan import Hardware, make_plan
from tests.plan_checks import check_flops
from tests.selftrain.models.test_models import FEED, HIDDEN, LAYERS, TOKENS, write_gguf

CONFIG = RunConfig(
    problems=BankConfig(languages=("py", "sh"), sizes={"sft": 200, "rl": 20, "validation": 4, "test": 4}),
    model=ModelConfig(vocabulary=512, hidden_size=64, layers=2, heads=2),
    sft={"batch_size": 8, "micro_batch_size": 4},
    sample={"rl": 4, "max_new_tokens": 16},
    reward={"batch_size": 4, "micro_batch_size": 4},
    ppo={"rollout_batch": 8, "mini_batch": 8, "micro_batch": 4},
    runtime=RuntimeConfig(processes=1, backend="process"),
)


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return corpus_of(CONFIG)


@pytest.fixture(scope="module")
def shape(corpus: Corpus) -> Shape:
    return shape_of(CONFIG.model, corpus.vocabulary)


def test_parameters_are_exact(corpus: Corpus, shape: Shape):
    model = make_tiny(CONFIG.model, corpus.tokenizer)
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    linear = [m for m in model.model.modules() if isinstance(m, torch.nn.Linear)]
    assert shape.trunk_linear == sum(m.weight.numel() for m in linear)


def test_parameters_of_a_gguf_file_are_exact(tmp_path: Path):
    write_gguf(tmp_path / "tiny.gguf")
    shape = shape_of(ModelConfig(base=str(tmp_path), gguf_file="tiny.gguf"))
    layer = 4 * HIDDEN * HIDDEN + 3 * HIDDEN * FEED + 2 * HIDDEN
    assert shape.parameters in (
        LAYERS * layer + HIDDEN + TOKENS * HIDDEN,
        LAYERS * layer + HIDDEN + 2 * TOKENS * HIDDEN,
    )


def test_counts_and_tokens_are_those_of_the_problems(corpus: Corpus):
    assert corpus.counts["sft"] == {"py": 200, "sh": 200}
    assert corpus.count("validation", "test") == 16
    problem = next(p for p in corpus.problems if p.split == "sft")
    prompt, answer = corpus.learnt[0]
    assert prompt == len(corpus.tokenizer(problem.prompt)["input_ids"]) + 1, "and the separator"
    assert answer == len(corpus.tokenizer(problem.response)["input_ids"]) + 1, "and the end"


def test_flops_are_those_that_torch_counts(
    tmp_path: Path, corpus: Corpus, shape: Shape, monkeypatch: pytest.MonkeyPatch
):
    sizes = Sizes(rows=8, pairs=4, rollouts=8, tokens=12, shard=2)
    found = check_flops(tmp_path, CONFIG, shape, corpus, sizes, monkeypatch.setattr)
    for estimated, counted in found.values():
        assert estimated == pytest.approx(counted, rel=0.1), found


def test_calibration_measures_every_kind_of_work_and_times_every_stage(
    corpus: Corpus, shape: Shape, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(calibration, "SMALL", 0)
    monkeypatch.setattr(calibration, "DEPTH", 1)  # of two layers
    both = RuntimeConfig(processes=1, nodes=2, rendezvous="elsewhere:29500", backend="process")
    config = CONFIG.model_copy(update={"runtime": both})  # this one of two machines is measured
    speed = calibration.calibrate(config, shape, shape, corpus)
    assert set(speed.rates) == {"sft", "train_reward", "ppo", "rollout", "sample", "score"}
    assert all(rate > 1e6 for rate in speed.rates.values()), speed.rates
    assert all(seconds >= 0 for seconds in (*speed.starts.values(), *speed.saves.values(), speed.token))
    assert "measured here" in speed.said


def test_a_large_model_is_measured_with_a_few_of_its_layers(
    tmp_path: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
):
    sizes = {"hidden_size": 16, "intermediate_size": 40, "num_attention_heads": 2, "num_key_value_heads": 1}
    Qwen2Config(num_hidden_layers=8, vocab_size=50, **sizes).save_pretrained(tmp_path)
    config = CONFIG.model_copy(update={"model": ModelConfig(base=str(tmp_path))})
    whole = shape_of(config.model)
    assert calibration.shallow(config, whole, corpus) is None, "it is small"
    monkeypatch.setattr(calibration, "SMALL", whole.parameters - 1)
    few = shape_by(calibration.shallow(config, whole, corpus))
    assert (few.layers, few.head) == (calibration.DEPTH, whole.head)
    assert few.trunk_linear * 8 == whole.trunk_linear * calibration.DEPTH


def test_what_each_layer_is_is_cut_with_the_layers(
    tmp_path: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(calibration, "SMALL", 0)
    kinds = {
        "num_layers": 6,
        "attention_types": [[["global", "local"], 3]],
        "hidden_size": 16,
        "num_heads": 2,
    }
    GPTNeoConfig(**kinds, vocab_size=50, bos_token_id=1, eos_token_id=1).save_pretrained(tmp_path)
    config = CONFIG.model_copy(update={"model": ModelConfig(base=str(tmp_path))})
    few = calibration.shallow(config, shape_of(config.model), corpus)
    few.save_pretrained(tmp_path / "few")
    again = AutoConfig.from_pretrained(tmp_path / "few")
    assert again.attention_layers == ["global", "local", "global", "local"]
    assert shape_by(again).layers == calibration.DEPTH


def test_a_plan_from_a_config_alone_counts_characters(tmp_path: Path):
    make_tiny(CONFIG.model, _Tokenizer()).config.save_pretrained(tmp_path)
    plan = make_plan(CONFIG.model_copy(update={"model": ModelConfig(base=str(tmp_path))}), Hardware())
    assert plan.shape.parameters == shape_of(CONFIG.model).parameters
    assert any("characters taken as one" in line for line in plan.corpus.assumptions)


class _Tokenizer:
    """As much of a tokenizer as `make_tiny` asks for."""

    eos_token_id, pad_token_id = 1, 0

    def __len__(self) -> int:
        return CONFIG.model.vocabulary
