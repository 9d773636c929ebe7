"""Tests of the reranker as PPO's reward: batching has no effect, and scores equal those of plain transformers."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

from selftrain.config import PPOConfig, RuntimeConfig
from selftrain.rerank.reranker import Reranker
from selftrain.training.ppo.score import RerankerScore
from selftrain.training.ppo.train import _load
from tests.selftrain.training.ppo.tiny import make_model

PROMPTS = [[5, 6, 7], [3], [4, 4], [9, 8, 7, 6, 5]]
COMPLETIONS = [[10, 1], [11, 12, 13, 14, 15], [1], [2, 3, 1]]


def test_scores_are_those_of_each_row_alone():
    torch.manual_seed(0)
    base = make_model().config.to_dict() | {"num_labels": 1, "architectures": None}
    model = LlamaForSequenceClassification(LlamaConfig(**base))
    alone = []
    for prompt, completion in zip(PROMPTS, COMPLETIONS, strict=True):
        with torch.no_grad():
            alone.append(model.eval()(torch.tensor([prompt + completion])).logits[0, 0])
    for micro_batch in (1, 3, 10):
        scores = RerankerScore(model, micro_batch)(PROMPTS, COMPLETIONS)
        torch.testing.assert_close(scores, torch.stack(alone))


@pytest.mark.parametrize("arithmetic", ["float32", "bfloat16"])
def test_the_reranker_computes_in_ppo_as_it_ranks(
    arithmetic: str, generator: Path, reranker: Path, tmp_path: Path
):
    folder = shutil.copytree(reranker, tmp_path / "rm")
    config = json.loads((reranker / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"compute_type": arithmetic}))
    child = SimpleNamespace(inputs={"generator": generator, "reranker": folder}, runtime=RuntimeConfig())
    settings: Any = SimpleNamespace(seed=0, ppo=PPOConfig())
    _, judge, _ = _load(settings, cast(Any, child))
    ranker = Reranker.load(folder)
    assert judge.dtype is ranker.model.dtype is getattr(torch, arithmetic)
    rows = ranker.encode([("def add(n):\n", ["    return n + 7\n", "    return n\n"])])[0]
    found = RerankerScore(judge, 1)([[]] * 2, rows)
    with torch.no_grad():
        expected = [ranker.model(torch.tensor([row])).logits[0, 0] for row in rows]
    assert found.dtype is torch.float32
    torch.testing.assert_close(found, torch.stack(expected))
