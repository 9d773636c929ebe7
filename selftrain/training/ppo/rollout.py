"""Samples PPO's rollouts: one completion per prompt from the current policy.

`FromPolicy` decodes with the trainer's own model. `FromUnshardedCopy` decodes with an unsharded copy of the policy, for ZeRO
stage 3. `FromEngine` decodes with a sampling engine of `selftrain.sampling`, which loads the policy's weights at every step.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selftrain.sampling.hf import decode, seeded
from selftrain.sampling.stopping import Stopping


def noise(seed: int, step: int, rows: int, tokens: int) -> Tensor:
    """[rows, tokens] float64 uniform numbers in [0, 1): one draw per token, whatever the number of ranks that share the rows."""
    return torch.rand(rows, tokens, generator=seeded("rollout", seed, step), dtype=torch.float64)


Stops = Sequence[Sequence[str]] | None
"""The stop texts of each row's problem; None: no problem has any."""
Weights = Callable[[], Iterator[tuple[str, Tensor]]]
"""Iterates over the names and unsharded tensors of the policy's weights (see `models.weights.unsharded_parameters`). Every rank
must iterate to the end."""


class FromPolicy:
    """Samples a step's completions with the trainer's own model."""

    def __init__(self, policy: Any, temperature: float, stopping: Stopping) -> None:
        self.policy, self.temperature, self.stopping = policy, temperature, stopping

    def refresh(self, weights: Weights) -> None:
        """Load the policy's current weights; here nothing is to be done, since the model is the policy itself.

        Every rank calls this before it samples for the first time with new weights.
        """

    def __call__(
        self, prompts: Sequence[list[int]], uniforms: Tensor, place: str, stops: Stops = None
    ) -> list[list[int]]:
        """One completion per prompt, as token ids. It stops after its first end token, with a stop text, or at the maximum.

        prompts   decoded as one batch
        uniforms  [rows, max_new_tokens] float64 draws, for classes that draw each token themselves
        place     a text unique to this run's seed, step and rank, for classes that need a seed instead
        stops     the stop texts of each row's problem; None: no problem has any
        """
        watch = self.stopping.watch(stops) if stops else None
        was_training, ends = self.policy.training, self.stopping.ends
        self.policy.eval()  # in training mode, a model that recomputes activations keeps no KV cache
        try:
            drawn = decode(
                self.policy, prompts, uniforms.shape[1], uniforms, ends, self.temperature, watch=watch
            )
        finally:
            self.policy.train(was_training)
        return [one.token_ids for one in drawn]


class FromUnshardedCopy(FromPolicy):
    """Samples with an unsharded copy of the policy in each rank; a sharded policy would gather every layer for every token."""

    @torch.no_grad()
    def refresh(self, weights: Weights) -> None:
        """Copy the policy's weights, one tensor at a time."""
        own = dict(self.policy.named_parameters())
        for name, value in weights():
            own[name].copy_(value)


class FromEngine:
    """Samples with an engine that loads the policy from a checkpoint's folder.

    start   creates the engine for a folder
    save    writes a checkpoint of the policy with the given weights into a folder; only rank 0 calls it
    folder  the checkpoint's folder, on a file system that all ranks share
    main    whether this is rank 0
    wait    barrier: returns when every rank has called it
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
        self.wait()  # no rank may still read the previous checkpoint
        if self.main:
            self.save(kept, self.folder)
        self.wait()
        self.engine = self.engine or self.start(self.folder)
        # A new engine reloads too: it may have found converted weights that a killed run left.
        self.engine.reload(self.folder)
        self.wait()

    def __call__(
        self, prompts: Sequence[list[int]], uniforms: Tensor, place: str, stops: Stops = None
    ) -> list[list[int]]:
        """See `FromPolicy`."""
        names = [f"{place}/{row}" for row in range(len(prompts))]
        drawn = self.engine.sample(prompts, 1, seeded(place).initial_seed() % 2**31, names, stops)
        return [samples[0].token_ids for samples in drawn]


Rollouts = FromPolicy | FromEngine
