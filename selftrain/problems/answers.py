"""Turns a problem's response into the completion that SFT learns: from a response in prose, the program in it."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from sandbox.completion import Unreadable, extract_completion


class Cleaned(NamedTuple):
    """A cleaned response.

    text  what SFT learns; None where there is nothing to learn
    how   `as it is`: the response itself, white space around it aside; `cut`: a part of the response; `left out`: unusable;
          empty: there was no response
    why   the reason for `left out`
    """

    text: str | None
    how: Literal["as it is", "cut", "left out", ""]
    why: str = ""


def clean(
    prompt: str, response: str | None, language: str, stop_tokens: Sequence[str], tests: str
) -> Cleaned:
    """The part of `response` that belongs after `prompt`, by the rule of `sandbox.completion`.

    A response that needs more than the prompt's function is left out: a model that learnt it would be cut at a stop token
    before the program is complete.
    """
    if response is None or not response.strip():
        return Cleaned(None, "")
    try:
        text = extract_completion(prompt, response, language, stop_tokens, tests)
    except Unreadable as error:
        return Cleaned(None, "left out", str(error))
    if not text.strip():
        return Cleaned(None, "left out", "nothing of it is before the first stop token")
    return Cleaned(text, "as it is" if text.strip() == response.strip() else "cut")
