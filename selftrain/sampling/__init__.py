"""The sampling engines Transformers (`hf`), CTranslate2 (`ctranslate2`), vLLM (`vllm`) and a server (`openai`).

Each engine is a class `Engine` in its own module. An engine has these methods:

    sample(prompts, n, seed, names, stops) -> list (per prompt) of list (n) of `Sample`
        `prompts` are lists of token ids; n = 0 asks for one greedy completion per prompt. `hf`, `vllm` and `openai` seed each sample
        separately and derive the seed from `names`, one name per prompt; `ctranslate2` seeds the whole call with `seed`.
        `stops` are the stop texts of each prompt; a completion ends as `selftrain.sampling.stopping` says.
    reload(folder)
        replaces the weights by those of another checkpoint of the same architecture; `hf` and `openai` lack this
        method, since PPO does not use these classes for its rollouts
"""

from typing import NamedTuple

BATCH = 256
"""Number of sequences that an engine decodes at once."""


class Sample(NamedTuple):
    """One completion.

    token_ids  the sampled tokens, up to and including the one that ended the completion
    logprobs   log-probability of each of these tokens in nats, at temperature 1 whatever the sampling temperature
    ended      whether an end token (one of `models.end_ids`) or a stop text ended it; else it has the greatest length
    """

    token_ids: list[int]
    logprobs: list[float]
    ended: bool

    @property
    def logprob(self) -> float:
        """Summed log-probability of the tokens, nats."""
        return sum(self.logprobs)


def default_names(seed: int, prompts: int) -> list[str]:
    """Names of prompts that were given none: the seed and the prompt's position."""
    return [f"{seed}/{at}" for at in range(prompts)]
