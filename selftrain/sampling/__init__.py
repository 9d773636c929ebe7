"""The sampling engines Transformers (`hf`), CTranslate2 (`ctranslate2`) and vLLM (`vllm`).

Each engine is a class `Engine` in its own module. An engine has these methods:

    sample(prompts, n, seed, names) -> list (per prompt) of list (n) of `Sample`
        `prompts` are lists of token ids; n = 0 asks for one greedy completion per prompt. `hf` and `vllm` seed each sample
        separately and derive the seed from `names`, one name per prompt; `ctranslate2` seeds the whole call with `seed`.
    logprobs(prompts, rows) -> list of float
        the summed log-probability of each row of token ids, given its prompt (nats, temperature 1)
    reload(folder)
        replaces the weights by those of another checkpoint of the same architecture; `hf` lacks this method, since PPO does
        not use the class for its rollouts
"""

from typing import NamedTuple

BATCH = 256
"""Number of sequences that an engine decodes at once."""


class Sample(NamedTuple):
    """One completion.

    token_ids  the sampled tokens, including the end token if the completion has one
    logprob    summed log-probability of these tokens in nats, at temperature 1 whatever the sampling temperature
    ended      whether the completion has an end token (one of `models.end_ids`)
    """

    token_ids: list[int]
    logprob: float
    ended: bool
