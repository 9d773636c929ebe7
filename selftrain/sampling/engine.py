"""What the sampling engines have in common; each is a class `Engine` in its own module."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from selftrain.config import SampleConfig
from selftrain.models.models import end_ids, load_tokenizer
from selftrain.sampling import Sample
from selftrain.sampling.stopping import Stopping

Prompts = Sequence[Sequence[int]]
"""Token ids of each prompt."""
Stops = Sequence[Sequence[str]]
"""The stop texts of each prompt's problem."""


class Sampler(ABC):
    """Samples completions by `settings`, which may be replaced between two calls; `folder` has the tokenizer.

    For PPO's rollouts an engine needs another method: `reload(folder)` replaces the weights by those of another checkpoint of the
    same architecture. `hf` and `openai` lack it, since PPO does not use these classes for its rollouts.
    """

    def __init__(self, folder: Path, settings: SampleConfig) -> None:
        self.settings = settings
        self.tokenizer = load_tokenizer(folder)
        self.ends = end_ids(self.tokenizer, folder)
        self.stopping = Stopping(self.tokenizer, self.ends)

    def sample(
        self,
        prompts: Prompts,
        n: int,
        seed: int,
        names: Sequence[str] | None = None,
        stops: Stops | None = None,
    ) -> list[list[Sample]]:
        """[prompts][n] completions; n = 0 asks for one greedy completion per prompt.

        seed   `ctranslate2` seeds the whole call with it
        names  the other engines derive the seed of each sample from its prompt's name; None: the seed and the prompt's position
        stops  a completion ends as `selftrain.sampling.stopping` says; None: there are no stop texts
        """
        names = names or [f"{seed}/{at}" for at in range(len(prompts))]
        return self._sample(prompts, n, seed, names, stops or [()] * len(prompts))

    @abstractmethod
    def _sample(
        self, prompts: Prompts, n: int, seed: int, names: Sequence[str], stops: Stops
    ) -> list[list[Sample]]:
        """See `sample`."""
