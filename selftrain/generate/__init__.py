"""Writes programs with a generator, and picks the best of n with a reranker: the Python interface `Generator` and `best_of_n`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sampled:
    """One completion.

    text           what continues the prompt, up to the first stop text; in prompt style `chat` the program of the answer
                   (`selftrain.problems.chat`)
    mean_logprob   mean log-probability per token under the generator at temperature 1, nats; None where a server gives none
    tokens         number of tokens that count in it; 0 where a server does not name them
    finish_reason  "stop" (end token or stop text) or "length"
    """

    text: str
    mean_logprob: float | None
    tokens: int
    finish_reason: str
