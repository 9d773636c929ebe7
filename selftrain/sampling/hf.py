"""Engine `hf`: decodes with Transformers on CPU or GPU; PPO's rollouts use its decoding loop (`decode`) too."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from selftrain.config import SampleConfig
from selftrain.models.models import load_generator, pad
from selftrain.sampling import BATCH, Sample
from selftrain.sampling.cache import preallocate
from selftrain.sampling.engine import Prompts, Sampler, Stops
from selftrain.sampling.stopping import Watch

NUCLEUS = 256
"""Number of the likeliest tokens among which a row's nucleus is looked for first: sorting a vocabulary of 150,000 takes as long as
a forward pass of a model of 0.5 B parameters."""
WHOLE, BLOCK = 8192, 512
"""A token is drawn from a vocabulary of at most WHOLE entries by summing over all of it, from a larger one by summing over blocks of
BLOCK entries, and then within one: PPO draws by sums in float64, which take long over 150,000 entries."""
DROP_SHARE = 0.1
"""Finished rows are removed from the batch once they make up this share of it, since each removal copies the KV cache."""


class Engine(Sampler):
    """Samples with the checkpoint in `folder`.

    A sample depends only on its prompt, the prompt's name and the sample's number, not on the batch.
    """

    def __init__(self, folder: Path, settings: SampleConfig, device: str = "cpu") -> None:
        super().__init__(folder, settings)
        half = device == "cuda" or settings.compute_type == "bfloat16"
        dtype = torch.bfloat16 if half else torch.float32
        self.model = load_generator(folder, dtype=dtype).to(device).eval()

    def _sample(
        self, prompts: Prompts, n: int, seed: int, names: Sequence[str], stops: Stops
    ) -> list[list[Sample]]:
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
                self.ends,
                self.settings.temperature,
                self.settings.top_p,
                self.settings.top_k,
                self.stopping.watch([stops[at] for at, _ in batch]),
            )
            samples.update(zip(batch, drawn, strict=True))
        return [[samples[at, k] for k in range(max(1, n))] for at in range(len(prompts))]


def seeded(*parts: int | str) -> torch.Generator:
    """A random generator on CPU, seeded with a hash of `parts`."""
    word = hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:8]
    return torch.Generator().manual_seed(int.from_bytes(word) >> 1)


def uniforms(name: str, count: int) -> torch.Tensor:
    """[count] float32 uniform numbers in [0, 1), seeded with a hash of `name`: the draws of one sample."""
    return torch.rand(count, generator=seeded(name))


@torch.inference_mode()
def decode(
    model: Any,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    uniforms: torch.Tensor | None,
    ends: Sequence[int],
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int | None = None,
    watch: Watch | None = None,
) -> list[Sample]:
    """One completion per prompt. A completion stops after the first token of `ends`, where `watch` says so, or at the maximum.

    uniforms  [rows, max_new_tokens] random numbers in [0, 1), one per token, see `draw`; None decodes greedily
    watch     looks for stop texts, see `stopping.Stopping.watch`; None: there are none

    Prompts are padded on the left and share one KV cache; equal prompts are read once. Finished rows are removed from the batch.
    `model` must be in evaluation mode: in training mode, a model that recomputes activations keeps no KV cache.
    """
    device = model.device
    stop = torch.tensor(list(ends), device=device)
    ids, mask, own = (tensor.to(device) for tensor in _distinct(prompts, ends[0]))
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    uniforms = None if uniforms is None else uniforms.to(device)
    tokens = torch.full((len(prompts), max_new_tokens), -1, device=device)
    logprobs = torch.zeros(len(prompts), max_new_tokens, device=device)
    stopped: set[int] = set()  # prompts whose completions a stop text ended
    rows = torch.arange(len(prompts), device=device)  # numbers of the prompts that are still in the batch
    running = torch.ones_like(rows, dtype=torch.bool)  # whether each of these rows is not finished
    watched = watch if watch is not None and any(watch.stops) else None
    cache: Any = None
    for step in range(max_new_tokens):
        given = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        out = model(**given, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache, logits = out.past_key_values, out.logits[:, -1].float()
        if step == 0:
            cache.batch_select_indices(own)
            preallocate(cache, max_new_tokens - 1)
            logits, mask, positions = logits[own], mask[own], positions[own]
        drawn = None if uniforms is None else uniforms[rows, step]
        chosen = logits.argmax(-1) if drawn is None else draw(logits, drawn, top_p, temperature, top_k)
        tokens[rows, step] = chosen.where(running, -1)
        logprobs[rows, step] = logits.log_softmax(-1).gather(1, chosen[:, None]).squeeze(1)
        if watched is not None:
            ended = _ended(watched, rows, chosen, running)
            stopped |= set(rows[ended].tolist())
            running &= ~ended
        running &= ~torch.isin(chosen, stop)
        left = int(running.sum())
        if left == 0:
            break
        positions = positions[:, -1:] + 1
        if left <= (1 - DROP_SHARE) * len(rows):
            keep = running.nonzero().squeeze(1)
            rows, chosen, running = rows[keep], chosen[keep], running[keep]
            mask, positions = mask[keep], positions[keep]
            cache.batch_select_indices(keep)
        ids = chosen[:, None]
        mask = torch.nn.functional.pad(mask, (0, 1), value=True)
    return _samples(tokens, logprobs, stopped, ends)


def _distinct(
    prompts: Sequence[Sequence[int]], padding: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The distinct prompts, padded on the left, as [distinct, longest] token ids and a bool mask, and each prompt's place [rows]
    among them."""
    places = {prompt: at for at, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))}
    ids = pad([*map(list, places)], padding, left=True)
    mask = pad([[1] * len(prompt) for prompt in places], 0, left=True).bool()
    return ids, mask, torch.tensor([places[tuple(prompt)] for prompt in prompts])


def _samples(
    tokens: torch.Tensor, logprobs: torch.Tensor, stopped: set[int], ends: Sequence[int]
) -> list[Sample]:
    """Completions from [rows, longest] token ids, -1 after a completion's end, and their log-probabilities."""
    found = [[token for token in row if token >= 0] for row in tokens.tolist()]
    return [
        Sample(ids, scores[: len(ids)], row in stopped or ids[-1] in ends)
        for row, (ids, scores) in enumerate(zip(found, logprobs.tolist(), strict=True))
    ]


def _ended(watch: Watch, rows: torch.Tensor, chosen: torch.Tensor, running: torch.Tensor) -> torch.Tensor:
    """[rows] bool, whether a running row's token completes a stop text; `rows`: their numbers in `watch`."""
    listed = torch.stack([rows, chosen, running.long()], 1).tolist()  # one transfer from the device
    return torch.tensor(
        [bool(alive) and watch(row, token) for row, token, alive in listed], device=rows.device
    )


def draw(
    logits: torch.Tensor,
    uniforms: torch.Tensor,
    top_p: float = 1.0,
    temperature: float = 1.0,
    top_k: int | None = None,
) -> torch.Tensor:
    """[rows] token ids drawn from softmax(logits / temperature) by inverse transform sampling.

    A row's token is the first token whose cumulative probability exceeds the row's uniform number.

    logits    [rows, vocabulary]
    uniforms  [rows] random numbers in [0, 1); their type is also the type in which probabilities are summed
    top_p     nucleus sampling: draw from the smallest set of the likeliest tokens whose probabilities sum to at least `top_p`
    top_k     draw from the `top_k` likeliest tokens only; `top_p` refers to their probabilities, which then sum to 1
    """
    probabilities = (logits.float() / temperature).softmax(-1)
    if top_p == 1 and not top_k:
        return _first_above(probabilities, uniforms)
    found, order = probabilities.topk(min(top_k or NUCLEUS, logits.shape[-1]), dim=-1)
    if top_k:
        found = found / found.sum(-1, keepdim=True)
    drawn = _from_nucleus(found, order, uniforms, top_p)
    wide = (found.sum(-1) < top_p) if not top_k else torch.zeros_like(drawn, dtype=torch.bool)
    if bool(wide.any()):
        found, order = probabilities[wide].sort(-1, descending=True)
        drawn[wide] = _from_nucleus(found, order, uniforms[wide], top_p)
    return drawn


def _from_nucleus(
    probabilities: torch.Tensor, order: torch.Tensor, uniforms: torch.Tensor, top_p: float
) -> torch.Tensor:
    """[rows] token ids drawn from the nucleus of `top_p`.

    probabilities  [rows, k] those of the k likeliest tokens, descending
    order          [rows, k] the ids of these tokens
    """
    # A token is outside the nucleus if the likelier tokens already sum to `top_p`.
    outside = (probabilities.cumsum(-1) - probabilities) >= top_p
    ids, places = order.sort(-1)  # the draw goes through the tokens in the order of the vocabulary
    inside = probabilities.masked_fill(outside, 0.0).gather(1, places)
    return ids.gather(1, _first_above(inside, uniforms)[:, None]).squeeze(1)


def _first_above(probabilities: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """[rows] the first place at which the cumulative probability exceeds the row's number x the sum of all."""
    entries = probabilities.shape[-1]
    if entries <= WHOLE:
        cumulative = probabilities.cumsum(-1, dtype=uniforms.dtype)
        target = uniforms[:, None] * cumulative[:, -1:]
        return torch.searchsorted(cumulative, target, right=True).squeeze(1).clamp(max=entries - 1)
    blocks = torch.nn.functional.pad(probabilities, (0, -entries % BLOCK)).unflatten(1, (-1, BLOCK))
    block, fraction = _block_above(blocks.sum(-1), uniforms)
    inside = blocks[torch.arange(len(blocks), device=block.device), block]
    return block * BLOCK + _block_above(inside, fraction)[0]


def _block_above(sums: torch.Tensor, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """[rows] the first place of `sums` [rows, places] at which their cumulative sum exceeds the row's number x the sum of all, never
    one whose sum is 0; and [rows] how far into that place's sum the number falls, in [0, 1]."""
    cumulative = sums.cumsum(-1, dtype=uniforms.dtype)
    total = cumulative[:, -1:].contiguous()
    target = uniforms[:, None] * total
    # Rounding may make the target the total itself, which nothing exceeds: the last place with a sum is the first to reach it.
    last = torch.searchsorted(cumulative, total)
    place = torch.minimum(torch.searchsorted(cumulative, target, right=True), last)
    upto = cumulative.gather(1, place)
    before = torch.where(place > 0, cumulative.gather(1, (place - 1).clamp(min=0)), torch.zeros_like(upto))
    fraction = ((target - before) / (upto - before)).clamp(0, 1)
    return place.squeeze(1), fraction.squeeze(1)
