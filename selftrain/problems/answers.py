"""Responses to learn from, as they come and as they are learnt from: the completion in an answer, where it is one."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from sandbox.completion import Unreadable, extract_completion


class Cleaned(NamedTuple):
    """`text` is what is learnt from, None where nothing is. `how`: it is the response `as it is` (but for white space around it), was
    `cut` out of it, or the response is `left out` for the reason in `why`; empty where there was none."""

    text: str | None
    how: Literal["as it is", "cut", "left out", ""]
    why: str = ""


def clean(
    prompt: str, response: str | None, language: str, stop_tokens: Sequence[str], tests: str
) -> Cleaned:
    """What of `response` belongs after `prompt`, by the rule of `sandbox.completion`. Left out is what the prompt's function alone
    cannot hold: a model that learnt it would be cut at the stop tokens before it is through."""
    if response is None or not response.strip():
        return Cleaned(None, "")
    try:
        text = extract_completion(prompt, response, language, stop_tokens, tests)
    except Unreadable as error:
        return Cleaned(None, "left out", str(error))
    if not text.strip():
        return Cleaned(None, "left out", "nothing of it is before the first stop token")
    return Cleaned(text, "as it is" if text.strip() == response.strip() else "cut")
