"""PPO's reward: the types of scoring and execution, and scoring with the reranker."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from selftrain.models.models import pad

Score = Callable[[Sequence[list[int]], Sequence[list[int]]], Tensor]
"""(prompts, completions), token ids, one list per row -> [rows] float32 scores, which PPO trains the policy to raise. A completion
that a stop text ended comes without this text, with an end token; one without an end token was cut at the maximum length."""
Execute = Callable[[Sequence[int], Sequence[list[int]]], Sequence[bool | None]]
"""(number of each row's problem, completions) -> whether each passes its problem's tests; None: no verdict from the sandbox."""
Translate = Callable[[list[int], list[int]], list[int]]
"""(prompt, completion) in the policy's token ids -> prompt + completion in the reranker's token ids."""


@dataclass(frozen=True)
class Reward:
    """The reward's two sources: scores and test results. `execute` is needed for `ppo.execution_weight` and for probes."""

    score: Score
    execute: Execute | None = None


class RerankerScore:
    """Scores completions with the reranker, a one-label sequence classifier.

    translate  converts the policy's token ids to the reranker's; None: both models have the same token ids
    """

    def __init__(self, model: Any, micro_batch: int, translate: Translate | None = None) -> None:
        self.model = model.eval()
        self.micro_batch = micro_batch
        self.translate: Translate = translate or (lambda prompt, completion: prompt + completion)

    @torch.no_grad()
    def __call__(self, prompts: Sequence[list[int]], completions: Sequence[list[int]]) -> Tensor:
        """[rows] float32 scores, on the model's device."""
        rows = [self.translate(p, c) for p, c in zip(prompts, completions, strict=True)]
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
