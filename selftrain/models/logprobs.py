"""Computes log-probabilities of given tokens under a causal language model."""

from collections.abc import Sequence
from typing import Any

from selftrain.models.footprint import chunk_tokens


def summed_logprobs(
    model: Any, prompts: Sequence[Sequence[int]], rows: Sequence[Sequence[int]]
) -> list[float]:
    """[rows] the summed log-probability of each row's tokens, given its prompt; in nats, at temperature 1.

    prompts, rows  token ids, one list per row; no prompt may be empty
    """
    import torch

    size = chunk_tokens(model.get_output_embeddings().weight.shape[0])
    found = []
    for prompt, row in zip(prompts, rows, strict=True):
        ids = torch.tensor([[*prompt, *row]], device=model.device)
        total, read, cache = 0.0, 0, None
        for at in range(0, len(row), size):  # a long row's logits do not fit into memory together
            count = min(size, len(row) - at)
            last = len(prompt) + at + count - 1
            with torch.inference_mode():
                out = model(
                    input_ids=ids[:, read:last],
                    past_key_values=cache,
                    use_cache=len(row) > size,
                    logits_to_keep=count,
                )
            logs = out.logits[0, -count:].float().log_softmax(-1)
            total += float(logs.gather(1, ids[0, last + 1 - count : last + 1, None]).sum())
            read, cache = last, out.past_key_values
        found.append(total)
    return found
