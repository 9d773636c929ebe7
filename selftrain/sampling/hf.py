"""Transformers, in this process: always there, on CPU and GPU, and what PPO's rollouts use."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from selftrain.config import SampleConfig
from selftrain.models.logprobs import summed_logprobs
from selftrain.models.models import end_ids, load_generator, load_tokenizer, pad
from selftrain.sampling import BATCH, Sample


class Engine:
    """Samples with the checkpoint in `folder`. A sample depends on its prompt, the prompt's name and its number only."""

    def __init__(self, folder: Path, settings: SampleConfig, device: str = "cpu") -> None:
        self.settings = settings
        self.tokenizer = load_tokenizer(folder)
        self.model = (
            load_generator(folder, dtype=torch.bfloat16 if device == "cuda" else torch.float32)
            .to(device)
            .eval()
        )
        self.ends = end_ids(self.tokenizer, folder)

    def sample(
        self, prompts: Sequence[Sequence[int]], n: int, seed: int, names: Sequence[str] | None = None
    ) -> list[list[Sample]]:
        """See the package's docstring. Without `names` the seed and the prompt's place are its name."""
        names = names or [f"{seed}/{at}" for at in range(len(prompts))]
        rows = [(at, k) for at in range(len(prompts)) for k in range(max(1, n))]
        rows.sort(key=lambda row: len(prompts[row[0]]))
        samples: dict[tuple[int, int], Sample] = {}
        length = self.settings.max_new_tokens
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            noise = torch.stack([uniforms(f"{names[at]}/{k}", length) for at, k in batch]) if n else None
            drawn = decode(
                self.model,
                [prompts[at] for at, _ in batch],
                length,
                noise,
                self.settings.temperature,
                self.settings.top_p,
                self.ends,
                self.tokenizer.pad_token_id,
            )
            samples.update(zip(batch, drawn, strict=True))
        return [[samples[at, k] for k in range(max(1, n))] for at in range(len(prompts))]

    def logprobs(self, prompts: Sequence[Sequence[int]], rows: Sequence[Sequence[int]]) -> list[float]:
        """See the package's docstring."""
        return summed_logprobs(self.model, prompts, rows)


def uniforms(name: str, count: int) -> torch.Tensor:
    """`count` uniform numbers that depend on `name` only: one row's draws, whatever batch it is in."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1
    return torch.rand(count, generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def decode(
    model: Any,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    noise: torch.Tensor | None,
    temperature: float,
    top_p: float,
    ends: Sequence[int],
    fill: int,
) -> list[Sample]:
    """Completes each prompt, up to the first of `ends`. `noise`: [prompts, max_new_tokens] uniform numbers, one per draw;
    None decodes greedily.

    Prompts are padded on the left and share one KV cache; decoding stops when every row has ended.
    """
    device = next(model.parameters()).device
    ids = pad(prompts, fill, left=True).to(device)
    mask = pad([[1] * len(prompt) for prompt in prompts], 0, left=True).to(device)
    places = (mask.cumsum(1) - 1).clamp(min=0)
    noise = None if noise is None else noise.to(device)
    last = torch.tensor(list(ends), device=device)
    alive = torch.ones(len(prompts), dtype=torch.bool, device=device)
    total = torch.zeros(len(prompts), device=device)
    steps: list[torch.Tensor] = []
    cache = None
    for step in range(max_new_tokens):
        out = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=places,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache = out.past_key_values
        logits = out.logits[:, -1].float()
        chosen = logits.argmax(-1) if noise is None else draw(logits / temperature, noise[:, step], top_p)
        total += torch.where(alive, logits.log_softmax(-1).gather(1, chosen[:, None])[:, 0], 0.0)
        steps.append(torch.where(alive, chosen, -1))
        alive = alive & ~torch.isin(chosen, last)
        if not alive.any():
            break
        ids, places = chosen[:, None], places[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(prompts), 1)], 1)
    rows = [[token for token in row if token >= 0] for row in torch.stack(steps, 1).tolist()]
    return [Sample(row, score, row[-1] in ends) for row, score in zip(rows, total.tolist(), strict=True)]


def draw(logits: torch.Tensor, noise: torch.Tensor, top_p: float) -> torch.Tensor:
    """One token per row by inverse transform sampling: the first whose cumulative probability exceeds the row's number."""
    probabilities = logits.softmax(-1)
    if top_p < 1:
        ordered, order = probabilities.sort(-1, descending=True)
        cut = (
            ordered.cumsum(-1) - ordered
        ) >= top_p  # the nucleus: tokens before which less than top_p is spent
        probabilities = torch.zeros_like(probabilities).scatter(1, order, ordered.masked_fill(cut, 0.0))
    cumulative = probabilities.cumsum(-1)
    target = noise[:, None] * cumulative[:, -1:]
    return (cumulative <= target).sum(-1).clamp(max=logits.shape[-1] - 1)
