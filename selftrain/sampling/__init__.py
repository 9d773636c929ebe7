"""Sampling engines: Transformers, CTranslate2, vLLM.

Each is a class with a method:

    Engine(folder, settings).sample(prompts, n, seed, names) -> list (per prompt) of list (n) of `Sample`

`prompts` are token ids; n = 0 asks for the greedy completion. What decides the draws is `names`, one per prompt, in an
engine that draws each sample by itself (`hf`), else `seed`, for all that are sampled together (`ctranslate2`).
`logprobs(prompts, rows)` gives the summed log-probabilities (nats, temperature 1) of given tokens behind each prompt.
`reload(folder)`, in the engines that PPO's rollouts may use beside the trainer's own model, takes other weights of the same
architecture.
"""

from typing import NamedTuple

BATCH = 256
"""Sequences that an engine decodes at once."""


class Sample(NamedTuple):
    """One completion.

    token_ids  the sampled tokens, end token included where it was reached
    logprob    their summed log-probability at temperature 1 (nats), whatever temperature they were drawn at
    ended      whether an end token was reached: any of `models.end_ids`
    """

    token_ids: list[int]
    logprob: float
    ended: bool
