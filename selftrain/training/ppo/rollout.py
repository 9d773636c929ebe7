"""Rollouts: samples one completion per prompt from the policy, with noise that belongs to the row and not to the batch.

`FromPolicy` decodes with the trainer's model, `FromWholeCopy` with a whole copy of one that ZeRO stage 3 holds in shards, `FromEngine` with a
sampling engine of `selftrain.sampling` that takes over the policy's weights at every step.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from selftrain.sampling.hf import decode


def seeded(*parts: int | str) -> torch.Generator:
    """A CPU generator whose numbers depend on `parts` and nothing else."""
    word = hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:8]
    return torch.Generator().manual_seed(int.from_bytes(word) >> 1)


def noise(seed: int, step: int, rows: int, tokens: int) -> Tensor:
    """[rows, tokens] uniforms in [0, 1) that decide every token of a step, however its rows are spread over ranks."""
    return torch.rand(rows, tokens, generator=seeded("rollout", seed, step), dtype=torch.float64)


Weights = Callable[[], Iterator[tuple[str, Tensor]]]
"""Goes through the policy's whole weights by name (`weights.whole`); every rank must."""


class Rollouts(Protocol):
    """What samples a step's completions."""

    def refresh(self, weights: Weights) -> None:
        """Take over the policy's weights. Called by every rank before the first sampling with them."""
        ...

    def __call__(self, prompts: Sequence[list[int]], uniforms: Tensor, place: int) -> list[list[int]]:
        """One completion per prompt, as `sample` gives them.

        uniforms  [rows, longest completion] what decides the draws of an engine that draws each token by itself
        place     a number of this step and rank only: what seeds an engine that does not
        """
        ...


class FromPolicy:
    """The trainer's own model: nothing to take over."""

    def __init__(self, policy: Any, temperature: float, ends: Sequence[int]) -> None:
        self.policy, self.temperature, self.ends = policy, temperature, ends

    def refresh(self, weights: Weights) -> None:
        """Nothing to do."""

    def __call__(self, prompts: Sequence[list[int]], uniforms: Tensor, place: int) -> list[list[int]]:
        """See `Rollouts`."""
        return sample(self.policy, prompts, uniforms, self.temperature, self.ends)


class FromWholeCopy(FromPolicy):
    """A whole copy of the policy in each rank: decoding with shards would gather every layer for every token."""

    @torch.no_grad()
    def refresh(self, weights: Weights) -> None:
        """Copy the weights, one at a time."""
        own = dict(self.policy.named_parameters())
        for name, value in weights():
            own[name].copy_(value)


class FromEngine:
    """A sampling engine that reads a checkpoint's folder.

    start   makes the engine of a folder
    save    writes the policy of the weights it is given into a folder; called by rank 0 only
    folder  seen by all ranks
    wait    returns when every rank has called it
    """

    def __init__(
        self,
        start: Callable[[Path], Any],
        save: Callable[[dict[str, Tensor], Path], None],
        folder: Path,
        main: bool,
        wait: Callable[[], None],
    ) -> None:
        self.start, self.save, self.folder, self.main, self.wait = start, save, folder, main, wait
        self.engine: Any = None

    def refresh(self, weights: Weights) -> None:
        """Write the policy as a checkpoint and have the engine read it."""
        kept = {name: value.cpu().clone() for name, value in weights() if self.main}
        self.wait()  # no rank reads the checkpoint before any more
        if self.main:
            self.save(kept, self.folder)
        self.wait()
        self.engine = self.engine or self.start(self.folder)
        self.engine.reload(
            self.folder
        )  # a new one too: what a killed run left of it may be older than the folder
        self.wait()

    def __call__(self, prompts: Sequence[list[int]], uniforms: Tensor, place: int) -> list[list[int]]:
        """See `Rollouts`."""
        names = [f"{place}/{row}" for row in range(len(prompts))]
        drawn = self.engine.sample(prompts, 1, place % 2**31, names)
        return [samples[0].token_ids for samples in drawn]


def sample(
    model: Any, prompts: Sequence[Sequence[int]], uniforms: Tensor, temperature: float, ends: Sequence[int]
) -> list[list[int]]:
    """One completion per prompt, as token ids, up to the first of `ends`, which is kept; absent where the length ran out.

    prompts   token ids, one list per row; decoded as one batch, padded on the left
    uniforms  [rows, longest completion], one number per token
    """
    was_training = model.training
    model.eval()  # in training mode a model that recomputes activations keeps no cache
    try:
        drawn = decode(model, prompts, uniforms.shape[1], uniforms, ends, temperature)
    finally:
        model.train(was_training)
    return [one.token_ids for one in drawn]
