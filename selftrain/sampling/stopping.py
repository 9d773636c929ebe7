"""Decides where a completion ends. All engines, PPO's rollouts and the records of candidates use this rule.

A completion ends with its first end token, or with the token that completes the first of the problem's stop texts. Its text is
what comes before the end token or the stop text. It *keeps* the tokens up to and including the first one with which this text is
complete, and its end token. The last kept token may say more than the text: of `return 1` + `\\n\\n` + `def`, cut at `\\ndef`, all
but `def` is kept. So log-probabilities are those of tokens that were sampled, and no text is encoded or scored again. A completion
without text keeps the first token of the stop text: with none, its log-probability would be 0, the highest there is.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from selftrain.models.models import decode_completion, encode_completion
from selftrain.models.prompts import style_of
from selftrain.records import Problem, cut


class Ending(NamedTuple):
    """Where a completion ends.

    text    the completion
    kept    number of tokens that it keeps
    used    number of tokens up to and including the one that ended it; an engine that samples more wastes them
    reason  an end token, a stop text, or neither: the longest completion was reached
    """

    text: str
    kept: int
    used: int
    reason: Literal["end", "stop", "length"]


def stop_texts(tokenizer: Any, problem: Problem) -> tuple[str, ...]:
    """The texts that end a problem's completion; none in prompt style `chat`, whose answers say more than the program."""
    return problem.stop_tokens if style_of(tokenizer) == "completion" else ()


class Stopping:
    """The rule for one tokenizer.

    tokenizer  None where no problem has stop texts and no text is wanted
    ends       ids of the tokens that end a completion
    """

    def __init__(self, tokenizer: Any, ends: Sequence[int]) -> None:
        self.tokenizer, self.ends = tokenizer, tuple(ends)

    def ending(self, ids: Sequence[int], stops: Sequence[str] = ()) -> Ending:
        """Where the completion with the tokens `ids` ends; `stops`: its problem's stop texts."""
        end = next((at for at, token in enumerate(ids) if token in self.ends), len(ids))
        text = self._text(ids[:end])
        if cut(text, stops) == text:
            used = min(end + 1, len(ids))
            return Ending(text, used, used, "end" if end < len(ids) else "length")
        # Another stop text may begin earlier and be completed later; the one that is completed first counts.
        used = _first(end, lambda count: cut(found := self._text(ids[:count]), stops) != found)
        text = cut(self._text(ids[:used]), stops)
        kept = _first(used, lambda count: self._text(ids[:count]).startswith(text))
        return Ending(text, max(1, kept), used, "stop")

    def ends_by_itself(self, ids: Sequence[int], stops: Sequence[str] = ()) -> bool:
        """Whether the completion has an end token or a stop text."""
        return any(token in self.ends for token in ids) or (
            bool(stops) and self.ending(ids, stops).reason == "stop"
        )

    def written(self, ids: Sequence[int], stops: Sequence[str]) -> list[int]:
        """The completion as rerankers read it: the tokens of its text and the end token where a stop text ended it, else `ids`."""
        if not stops or (found := self.ending(ids, stops)).reason != "stop":
            return list(ids)
        return encode_completion(self.tokenizer, found.text)

    def watch(self, stops: Sequence[Sequence[str]]) -> "Watch":
        """A watch over a batch of completions while they are sampled; `stops`: the stop texts of each row."""
        return Watch(self, stops)

    def _text(self, ids: Sequence[int]) -> str:
        return decode_completion(self.tokenizer, ids)


class Watch:
    """Tells for each sampled token whether it completes a stop text. End tokens are left to the engine."""

    def __init__(self, stopping: Stopping, stops: Sequence[Sequence[str]]) -> None:
        self.stopping, self.stops = stopping, stops
        self.rows: list[list[int]] = [[] for _ in stops]
        self.special = set(stopping.tokenizer.all_special_ids) if any(stops) else set()

    def __call__(self, row: int, token: int) -> bool:
        """Add a sampled token to a row; returns whether the row ends with it."""
        stops, ids = self.stops[row], self.rows[row]
        if not stops or token in self.special:  # special tokens have no text
            return False
        ids.append(token)
        # Each token has a byte of text at least. Two more: some tokenizers drop the first space of what they decode.
        tail = ids[-2 - max(len(stop.encode()) for stop in stops) :]
        if len(tail) == len(ids):  # the first space of the completion is its own
            text = decode_completion(self.stopping.tokenizer, ids)
        else:
            text = self.stopping.tokenizer.decode(tail, clean_up_tokenization_spaces=False)
        if cut(text, stops) == text:
            return False
        return self.stopping.ending(ids, stops).reason == "stop"


def _first(most: int, holds: Any) -> int:
    """The least number in 0..`most` for which `holds`, which holds for all larger ones too."""
    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low
