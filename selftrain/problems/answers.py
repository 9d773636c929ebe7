"""Extracts the completion that SFT learns from a problem's response, which may be prose around a program."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from sandbox.completion import Unreadable, extract_completion


class Cleaned(NamedTuple):
    """A cleaned response.

    text  the completion that SFT learns; None where there is none
    how   `as it is`: the whole response, apart from white space around it; `cut`: a part of the response; `left out`: the
          response is unusable; empty: the problem has no response
    why   the reason for `left out`, else empty
    """

    text: str | None
    how: Literal["as it is", "cut", "left out", ""]
    why: str = ""


def clean(
    prompt: str, response: str | None, language: str, stop_tokens: Sequence[str], tests: str
) -> Cleaned:
    """The part of `response` that completes `prompt`, as `sandbox.completion.extract_completion` finds it.

    A response is left out if its program needs code outside of the prompt's function: a model that learnt it would be cut off
    at a stop token before its program is complete.
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
