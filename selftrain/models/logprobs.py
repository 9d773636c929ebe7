"""Computes log-probabilities of given tokens under a causal language model."""

from collections.abc import Sequence
from typing import Any


def summed_logprobs(
    model: Any, prompts: Sequence[Sequence[int]], rows: Sequence[Sequence[int]]
) -> list[float]:
    """[rows] the summed log-probability of each row's tokens, given its prompt; in nats, at temperature 1.

    prompts, rows  token ids, one list per row; no prompt may be empty
    """
    import torch

    found = []
    for prompt, row in zip(prompts, rows, strict=True):
        ids = torch.tensor([[*prompt, *row]], device=model.device)
        with torch.inference_mode():
            logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float()
        chosen = logits.log_softmax(-1).gather(1, ids[0, len(prompt) :, None])
        found.append(float(chosen.sum()))
    return found
