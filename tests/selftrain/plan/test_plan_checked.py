"""Tests of the plan against measurements on a model small enough for the tests; `make bench` measures larger ones."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from flows.method import graph
from selftrain.config import SPLITS, BankConfig, ModelConfig, RunConfig, RuntimeConfig
from selftrain.models.models import make_tiny
from selftrain.models.shapes import Shape, shape_of
from selftrain.plan import corpus as corpora
from selftrain.plan.corpus import Corpus, corpus_of
from selftrain.plan.plan import Hardware, make_plan
from selftrain.problems.read import read_problems
from selftrain.records import Problem
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


def test_problems_are_read_once_and_again_when_a_file_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    reads = 0

    def counted(*arguments: Any) -> list[Problem]:
        nonlocal reads
        reads += 1
        return read_problems(*arguments)

    monkeypatch.setattr(corpora, "read_problems", counted)
    path = tmp_path / "own.jsonl"

    def counted_problems(values: Sequence[int]) -> dict[str, dict[str, int]]:
        rows = [
            {
                "task": f"add {n}",
                "language": "py",
                "prompt": f"def add_{n}(x):\n",
                "response": f"    return x + {n}\n",
                "tests": f"assert add_{n}(1) == {n + 1}\n",
                "split": SPLITS[n % 4],
            }
            for n in values
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        source = {"source": "jsonl", "languages": ["py"], "files": [str(path)]}
        return corpus_of(RunConfig(problems=source, model=CONFIG.model, runtime=CONFIG.runtime)).counts

    assert {split: rows["py"] for split, rows in counted_problems(range(8)).items()} == dict.fromkeys(
        SPLITS, 2
    )
    counted_problems(range(8))
    assert reads == 1
    assert counted_problems(range(9))["sft"] == {"py": 3}
    assert reads == 2


def test_flops_are_those_that_torch_counts(tmp_path: Path, corpus: Corpus, shape: Shape):
    found = check_flops(tmp_path, CONFIG, shape, corpus, 8, 12)
    assert set(found) == {"sft", "train_reward", "ppo", "sample"}
    for estimated, counted in found.values():
        assert estimated == pytest.approx(counted, rel=0.1), found


def test_a_plan_from_a_config_alone_counts_characters(tmp_path: Path):
    make_tiny(CONFIG.model, _Tokenizer()).config.save_pretrained(tmp_path)
    plan = make_plan(CONFIG.model_copy(update={"model": ModelConfig(base=str(tmp_path))}), Hardware(), graph)
    assert plan.shape.parameters == shape_of(CONFIG.model).parameters
    assert any("characters taken as one" in line for line in plan.corpus.assumptions)


class _Tokenizer:
    """As much of a tokenizer as `make_tiny` asks for."""

    eos_token_id, pad_token_id = 1, 0

    def __len__(self) -> int:
        return CONFIG.model.vocabulary
