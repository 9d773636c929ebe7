"""The reward of PPO: functions from prompts and completions, as token ids, to scores and to test results."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from selftrain.models.models import pad


class Score(Protocol):
    """Scores completions; the policy is trained to raise this score."""

    def __call__(self, prompts: Sequence[list[int]], completions: Sequence[list[int]]) -> Tensor:
        """[rows] float32 scores, higher is better. A completion ends with an end token unless it has the longest length."""
        ...


class Execute(Protocol):
    """Runs completions against their problems' tests."""

    def __call__(self, problems: Sequence[int], completions: Sequence[list[int]]) -> Sequence[bool | None]:
        """Whether each completion passes the tests of the problem with that number; None where the sandbox failed."""
        ...


@dataclass(frozen=True)
class Reward:
    """The sources of the reward; `execute` is needed for `ppo.execution_weight` and for probes."""

    score: Score
    execute: Execute | None = None


Translate = Callable[[list[int], list[int]], list[int]]
"""(prompt, completion) in the policy's token ids -> both in the reranker's token ids."""


class RerankerScore:
    """Scores with a one-label sequence classifier, on the policy's token ids or on those that `translate` makes of them."""

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
