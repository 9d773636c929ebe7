"""Converts the policy's token ids to those of a reranker with another tokenizer or prompt template."""

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
from selftrain.models.prompts import encode_problem, style_of
from selftrain.problems.chat import completion_of
from selftrain.records import Problem
from selftrain.training.ppo.score import Translate

SPECIAL = ("eos_token_id", "pad_token_id", "bos_token_id", "sep_token_id")
"""Special tokens that must be the same in both tokenizers, else token ids are converted."""
SAMPLE = "def f(x):\n    return 10 + x\n"
"""Two tokenizers with the same vocabulary and the same encoding of this text are treated as the same tokenizer."""


def translation(
    tokenizer: Any, ends: Sequence[int], reranker: Path, settings: Any, problems: Sequence[Problem] = ()
) -> Translate | None:
    """A function that converts the policy's token ids to the reranker's; None where no conversion is needed.

    A conversion is needed where vocabularies or special tokens differ, where the reranker has a prompt template, and where the
    policy has another end token than the reranker, or several. In prompt style `chat` the reranker reads the problem's prompt and
    the completion in the policy's answer, as it does in its training.

    tokenizer  the policy's tokenizer
    ends       ids of the tokens that end the policy's completions
    reranker   folder with the reranker's tokenizer
    settings   the reranker's transformers config
    problems   those of the policy's prompts; needed in prompt style `chat` only
    """
    other = load_tokenizer(reranker)
    template = getattr(settings, "prompt_template", None) or "{prompt}"
    if (
        other.get_vocab() == tokenizer.get_vocab()
        and all(getattr(other, name) == getattr(tokenizer, name) for name in SPECIAL)
        and encode_prompt(other, SAMPLE) == encode_prompt(tokenizer, SAMPLE)
        and set(ends) == {other.eos_token_id}
        and template == "{prompt}"
        and style_of(tokenizer) == "completion"
    ):
        return None
    heads: dict[tuple[int, ...], list[int]] = {}
    chat = style_of(tokenizer) == "chat"
    asked = {tuple(encode_problem(tokenizer, p.prompt, p.language)): p for p in problems} if chat else {}

    def translate(prompt: list[int], completion: list[int]) -> list[int]:
        problem = asked[tuple(prompt)] if chat else None
        if tuple(prompt) not in heads:
            text = problem.prompt if problem else tokenizer.decode(prompt, skip_special_tokens=True)
            heads[tuple(prompt)] = encode_prompt(other, fill_template(template, text))
        text = decode_completion(tokenizer, completion, ends)
        tail = encode_completion(other, completion_of(problem, text, "chat") if problem else text)
        # A completion that was cut at the maximum length has no end token for the reranker either.
        return heads[tuple(prompt)] + (tail if completion[-1] in ends else tail[:-1])

    return translate
