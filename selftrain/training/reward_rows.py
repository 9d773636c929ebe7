"""Rows and batches of reward training: a right program and the wrong program that it is paired with, as token ids.

In a packed batch both programs of a pair stand behind one another in one row and read their prompt once. A token attends to the
prompt and to its own program, and its position is that which it has behind the prompt alone, so that the scores are those of
separate rows.
"""

from collections.abc import Sequence
from typing import Any

import torch

from selftrain.config import RewardConfig
from selftrain.models.models import encode_completion, encode_prompt, fill_template, pad
from selftrain.records import Pair

Row = dict[str, Any]


def tokens(tokenizer: Any, pair: Pair, settings: RewardConfig) -> Row:
    """One pair as a row: token ids of prompt + program for both programs, the prompt's length, and the margin."""
    prompt = encode_prompt(tokenizer, fill_template(settings.template, pair.prompt))
    return {
        "chosen_ids": prompt + encode_completion(tokenizer, pair.chosen),
        "rejected_ids": prompt + encode_completion(tokenizer, pair.rejected),
        "prompt_length": len(prompt),
        "margin": settings.margin * pair.gap,
    }


def longest(row: Row) -> int:
    """Number of tokens of the longer program with its prompt."""
    return max(len(row["chosen_ids"]), len(row["rejected_ids"]))


class Collator:
    """Builds a batch: the right programs of all pairs, then their wrong programs."""

    def __init__(self, pad_token_id: int, packed: bool = False) -> None:
        self.pad_token_id = pad_token_id
        self.packed = packed

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        """A batch of R pairs. T is the longest input in tokens.

        input_ids, attention_mask  [2 R, T]; packed: [R, T]
        completion_mask  [2 R, T] which tokens of its input are the program's own
        margin           [R] the margins
        Packed also: `row` [2 R], each program's row; `scored` [2 R], the place in this row of the token whose score is the
        program's; `position_ids` [R, T]; `programs` [R, T], the number of the program in its row that a token belongs to, 1 or 2,
        and 0 for the prompt and the padding
        """
        batch = self._pack(rows) if self.packed else self._separate(rows)
        return batch | {"margin": torch.tensor([row["margin"] for row in rows])}

    def _separate(self, rows: Sequence[Row]) -> dict[str, Any]:
        ids = [row["chosen_ids"] for row in rows] + [row["rejected_ids"] for row in rows]
        heads = [row["prompt_length"] for row in rows] * 2
        return {
            "input_ids": pad(ids, self.pad_token_id),
            "attention_mask": pad([[1] * len(each) for each in ids], 0),
            "completion_mask": pad(
                [[0] * head + [1] * (len(each) - head) for each, head in zip(ids, heads, strict=True)], 0
            ),
        }

    def _pack(self, rows: Sequence[Row]) -> dict[str, Any]:
        ids, positions, programs = [], [], []
        for row in rows:
            head, right, wrong = row["prompt_length"], len(row["chosen_ids"]), len(row["rejected_ids"])
            ids.append([*row["chosen_ids"], *row["rejected_ids"][head:]])
            positions.append([*range(right), *range(head, wrong)])
            programs.append([0] * head + [1] * (right - head) + [2] * (wrong - head))
        number, every = pad(programs, 0), pad(ids, self.pad_token_id)
        row = torch.arange(len(rows)).repeat(2)
        own = number[row] == torch.tensor([1, 2]).repeat_interleave(len(rows))[:, None]
        # As in transformers' classifiers: the last token that is not the padding token, which the end token may be.
        read = (own | (number[row] == 0)) & (every[row] != self.pad_token_id)
        return {
            "input_ids": every,
            "attention_mask": pad([[1] * len(each) for each in ids], 0),
            "position_ids": pad(positions, 0),
            "programs": number,
            "row": row,
            "scored": number.shape[1] - 1 - read.long().flip(1).argmax(1),
            "completion_mask": own.long(),
        }


def packed_mask(attention_mask: torch.Tensor, programs: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """[R, 1, T, T] what is added to the attention's logits: 0 where a token (third axis) reads another, else the least number.

    A token reads the tokens before it that are its prompt's or its own program's. Padding reads the prompt.
    """
    width = programs.shape[1]
    before = torch.ones(width, width, dtype=torch.bool, device=programs.device).tril()
    own = (programs[:, None, :] == 0) | (programs[:, None, :] == programs[:, :, None])
    read = before & own & attention_mask[:, None, :].bool()
    return torch.zeros(read.shape, dtype=dtype, device=programs.device).masked_fill(
        ~read, torch.finfo(dtype).min
    )[:, None]
