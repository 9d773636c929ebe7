"""The sampling engines Transformers (`hf`), CTranslate2 (`ctranslate2`), vLLM (`vllm`) and a server (`openai`)."""

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
