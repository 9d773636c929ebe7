"""Tests of the reranker as PPO's reward: batching has no effect, and scores equal those of plain transformers."""

import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

from selftrain.training.ppo.score import RerankerScore
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
