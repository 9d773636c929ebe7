"""Sampling engines: Transformers, CTranslate2, vLLM.

Each is a class with a method:

    Engine(folder, settings).sample(prompts, n, seed, names) -> list (per prompt) of list (n) of `Sample`

`prompts` are token ids; n = 0 asks for the greedy completion. An engine that seeds each sample separately (`hf`, `vllm`)
derives the seed from `names`, one per prompt; one that seeds a batch (`ctranslate2`) uses `seed`.
`logprobs(prompts, rows)` gives for each row of token ids the sum of their log-probabilities after its prompt (nats,
temperature 1). `reload(folder)` replaces the weights by others of the same architecture; only the engines that PPO's rollouts
may use have it.
"""

from typing import NamedTuple

BATCH = 256
"""Sequences that an engine decodes at once."""


class Sample(NamedTuple):
    """One completion.

    token_ids  the sampled tokens, end token included where it was reached
    logprob    their summed log-probability at temperature 1 (nats), whatever the sampling temperature
    ended      whether an end token was reached: any of `models.end_ids`
    """

    token_ids: list[int]
    logprob: float
    ended: bool
