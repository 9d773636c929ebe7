"""Rollouts: samples one completion per prompt from the policy, with noise that belongs to the row and not to the batch."""

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from selftrain.models import pad

DROP_SHARE = 0.1
"""Finished rows leave the batch once they are this share of it; sooner, copying the cache costs more than it saves."""


def seeded(*parts: int | str) -> torch.Generator:
    """A CPU generator whose numbers depend on `parts` and nothing else."""
    word = hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:8]
    return torch.Generator().manual_seed(int.from_bytes(word) >> 1)


def noise(seed: int, step: int, rows: int, tokens: int) -> Tensor:
    """[rows, tokens] uniforms in [0, 1) that decide every token of a step, however its rows are spread over ranks."""
    return torch.rand(rows, tokens, generator=seeded("rollout", seed, step), dtype=torch.float64)


def choose(logits: Tensor, uniforms: Tensor, temperature: float) -> Tensor:
    """[rows] tokens: the inverse of softmax(logits / temperature)'s distribution function at each row's uniform."""
    distribution = (logits.float() / temperature).softmax(-1).cumsum(-1, dtype=torch.float64)
    at = torch.searchsorted(distribution, uniforms[:, None] * distribution[:, -1:], right=True).squeeze(1)
    return at.clamp(max=logits.shape[-1] - 1)


@torch.inference_mode()
def sample(
    model: Any, prompts: Sequence[Sequence[int]], uniforms: Tensor, temperature: float, end: int
) -> list[list[int]]:
    """One completion per prompt, as token ids; the end token is kept, and is absent where the length ran out.

    prompts   token ids, one list per row; decoded as one batch, padded on the left
    uniforms  [rows, longest completion], one number per token
    """
    device = model.device
    ids = pad(prompts, end, left=True).to(device)
    lengths = torch.tensor([len(p) for p in prompts], device=device)
    mask = torch.arange(ids.shape[1], device=device) >= ids.shape[1] - lengths[:, None]
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    uniforms = uniforms.to(device)
    chosen = torch.full(uniforms.shape, end, device=device)
    rows = torch.arange(len(prompts), device=device)  # which rows are still in the batch
    running = torch.ones(len(prompts), dtype=torch.bool, device=device)  # of those, which have not ended
    cache: Any = None
    for t in range(uniforms.shape[1]):
        out = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache = out.past_key_values
        token = choose(out.logits[:, -1], uniforms[rows, t], temperature).where(running, end)
        chosen[rows, t] = token
        running &= token != end
        left = int(running.sum())
        if left == 0:
            break
        positions = positions[:, -1:] + 1
        if left <= (1 - DROP_SHARE) * len(rows):
            keep = running.nonzero().squeeze(1)
            rows, token, mask, positions = rows[keep], token[keep], mask[keep], positions[keep]
            running = running[keep]
            cache.batch_select_indices(keep)
        ids = token[:, None]
        mask = torch.nn.functional.pad(mask, (0, 1), value=True)
    return [_cut(row, end) for row in chosen.tolist()]


def _cut(row: list[int], end: int) -> list[int]:
    """`row` up to its first end token."""
    return row[: row.index(end) + 1] if end in row else row
