"""The reward: a function from prompts and completions, as token ids, to scores. Here, the reranker's."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from selftrain.models import pad


class Score(Protocol):
    """Anything that scores completions; what the policy is trained to raise."""

    def __call__(self, prompts: Sequence[list[int]], completions: Sequence[list[int]]) -> Tensor:
        """[rows] scores, higher is better. A completion's last id is the end token unless it was cut at the limit."""
        ...


class RerankerScore:
    """Scores of a one-label sequence classifier, which reads the very ids that the policy wrote."""

    def __init__(self, model: Any, micro_batch: int) -> None:
        self.model = model.eval()
        self.micro_batch = micro_batch

    @torch.no_grad()
    def __call__(self, prompts: Sequence[list[int]], completions: Sequence[list[int]]) -> Tensor:
        """[rows] scores, float32, on the model's device."""
        rows = [p + c for p, c in zip(prompts, completions, strict=True)]
        lengths = torch.tensor([len(row) for row in rows])
        scores = torch.empty(len(rows), device=self.model.device)
        for chunk in lengths.argsort(stable=True).split(self.micro_batch):
            ids = pad([rows[i] for i in chunk.tolist()], self.model.config.pad_token_id)
            mask = torch.arange(ids.shape[1]) < lengths[chunk, None]
            out = self.model(
                input_ids=ids.to(scores.device), attention_mask=mask.to(scores.device), use_cache=False
            )
            scores[chunk.to(scores.device)] = out.logits[:, 0].float()
        return scores
