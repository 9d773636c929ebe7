"""Rollouts: sample one completion per prompt from the policy, with random numbers that depend on the row, not on the batch.

`FromPolicy` decodes with the trainer's model. `FromUnshardedCopy` decodes with an unsharded copy of a policy that ZeRO stage 3
shards. `FromEngine` uses a sampling engine of `selftrain.sampling`, which loads the policy's weights at every step.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from selftrain.sampling.hf import decode


def seeded(*parts: int | str) -> torch.Generator:
    """A CPU generator whose numbers depend only on `parts`."""
    word = hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:8]
    return torch.Generator().manual_seed(int.from_bytes(word) >> 1)


def noise(seed: int, step: int, rows: int, tokens: int) -> Tensor:
    """[rows, tokens] float64 uniform numbers in [0, 1): one draw per token of a step, however ranks share its rows."""
    return torch.rand(rows, tokens, generator=seeded("rollout", seed, step), dtype=torch.float64)


Weights = Callable[[], Iterator[tuple[str, Tensor]]]
"""Iterates over the policy's unsharded weights by name (`models.weights.unsharded_parameters`); every rank must iterate to the end."""


class Rollouts(Protocol):
    """Samples a step's completions."""

    def refresh(self, weights: Weights) -> None:
        """Load the policy's weights. Called by every rank before it samples with them for the first time."""
        ...

    def __call__(self, prompts: Sequence[list[int]], uniforms: Tensor, place: int) -> list[list[int]]:
        """One completion per prompt, in the form of `sample`.

        uniforms  [rows, max_new_tokens] float64 draws, for an implementation that draws each token itself
        place     a number unique to this step and rank, the seed for an engine that does not
        """
        ...


class FromPolicy:
    """Samples with the trainer's own model."""

    def __init__(self, policy: Any, temperature: float, ends: Sequence[int]) -> None:
        self.policy, self.temperature, self.ends = policy, temperature, ends

    def refresh(self, weights: Weights) -> None:
        """Does nothing: the model is the policy."""

    def __call__(self, prompts: Sequence[list[int]], uniforms: Tensor, place: int) -> list[list[int]]:
        """See `Rollouts`."""
        return sample(self.policy, prompts, uniforms, self.temperature, self.ends)


class FromUnshardedCopy(FromPolicy):
    """Samples with an unsharded copy of the policy in each rank: decoding with shards would gather every layer per token."""

    @torch.no_grad()
    def refresh(self, weights: Weights) -> None:
        """Copy the weights, one at a time."""
        own = dict(self.policy.named_parameters())
        for name, value in weights():
            own[name].copy_(value)


class FromEngine:
    """Samples with an engine that loads a checkpoint's folder.

    start   makes the engine for a folder
    save    writes the policy with the given weights into a folder; called by rank 0 only
    folder  on a file system of all ranks
    main    whether this is rank 0
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
        """Write the policy as a checkpoint and have the engine load it."""
        kept = {name: value.cpu().clone() for name, value in weights() if self.main}
        self.wait()  # until no rank reads the previous checkpoint any more
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
    """One completion per prompt, as token ids: up to and including the first of `ends`, or of the longest length.

    prompts   token ids, one list per row; decoded as one batch
    uniforms  [rows, max_new_tokens] float64 in [0, 1), one draw per token
    """
    was_training = model.training
    model.eval()  # in training mode a model that recomputes activations keeps no cache
    try:
        drawn = decode(model, prompts, uniforms.shape[1], uniforms, ends, temperature)
    finally:
        model.train(was_training)
    return [one.token_ids for one in drawn]
