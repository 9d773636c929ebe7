"""From the policy's tokens to those of a reranker that was trained on other tokens."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from selftrain.models.models import (
    decode_completion,
    encode_completion,
    encode_prompt,
    fill_template,
    load_tokenizer,
)
from selftrain.training.ppo.score import Translate

SPECIAL = ("eos_token_id", "pad_token_id", "bos_token_id", "sep_token_id")
SAMPLE = "def f(x):\n    return 10 + x\n"
"""Tokenizers with the same vocabulary that encode this text alike are taken to be the same."""


def translation(tokenizer: Any, ends: Sequence[int], reranker: Path, settings: Any) -> Translate | None:
    """What turns the policy's tokens into those that the reranker was trained on; None where they are the same.

    They are others with other tokens, with another end, padding, beginning or separator, or with a template, and where the
    policy has more than one token that ends a completion.

    ends      ids that end the policy's completions
    settings  the reranker's config
    """
    other = load_tokenizer(reranker)
    template = getattr(settings, "prompt_template", None) or "{prompt}"
    if (
        other.get_vocab() == tokenizer.get_vocab()
        and all(getattr(other, name) == getattr(tokenizer, name) for name in SPECIAL)
        and encode_prompt(other, SAMPLE) == encode_prompt(tokenizer, SAMPLE)
        and set(ends) == {other.eos_token_id}
        and template == "{prompt}"
    ):
        return None
    heads: dict[tuple[int, ...], list[int]] = {}

    def translate(prompt: list[int], completion: list[int]) -> list[int]:
        if tuple(prompt) not in heads:
            text = tokenizer.decode(prompt, skip_special_tokens=True)
            heads[tuple(prompt)] = encode_prompt(other, fill_template(template, text))
        tail = encode_completion(other, decode_completion(tokenizer, completion, ends))
        # A completion that was cut at the limit has no end token for the reranker either.
        return heads[tuple(prompt)] + (tail if completion[-1] in ends else tail[:-1])

    return translate
