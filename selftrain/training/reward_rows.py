"""Rows and batches of reward training: a right program and the wrong programs that are paired with it, as token ids.

In a packed batch the programs of a row stand behind one another and read their prompt once. A token attends to the prompt and to
its own program, and its position is that which it has behind the prompt alone, so that the scores are those of separate rows.
"""

from collections.abc import Sequence
from itertools import chain
from math import log2
from typing import Any

import torch

from selftrain.config import LONGEST_LIST, RewardConfig
from selftrain.errors import UsageError
from selftrain.models.models import encode_completion, encode_prompt, fill_template, pad
from selftrain.records import Pair
from selftrain.units import count_of

Row = dict[str, Any]


def tokens(tokenizer: Any, pair: Pair, settings: RewardConfig) -> Row:
    """One pair as a row: token ids of prompt + program (of the wrong program in a list), the prompt's length, and the margin."""
    prompt = encode_prompt(tokenizer, fill_template(settings.template, pair.prompt))
    return {
        "chosen_ids": prompt + encode_completion(tokenizer, pair.chosen),
        "rejected_ids": [prompt + encode_completion(tokenizer, pair.rejected)],
        "prompt_length": len(prompt),
        "margin": [settings.margin * pair.gap],
    }


def longest(row: Row) -> int:
    """Number of tokens of the longest program with its prompt."""
    return max(map(len, [row["chosen_ids"], *row["rejected_ids"]]))


def lists(rows: Sequence[Row]) -> list[Row]:
    """The rows of single pairs, with those of one right program (with its prompt) joined to lists of at most LONGEST_LIST."""
    found: dict[tuple[int, ...], list[Row]] = {}
    for row in rows:
        found.setdefault((row["prompt_length"], *row["chosen_ids"]), []).append(row)
    parts = [
        each[at : at + LONGEST_LIST] for each in found.values() for at in range(0, len(each), LONGEST_LIST)
    ]
    return [
        part[0]
        | {name: list(chain.from_iterable(row[name] for row in part)) for name in ("rejected_ids", "margin")}
        for part in parts
    ]


def batches_of_lists(settings: RewardConfig, rows: Sequence[Row], world: int = 1) -> RewardConfig:
    """The settings with batch sizes in lists in place of pairs, for `world` processes.

    Both sizes are divided by the power of two that is next to the mean number of pairs in a list. The micro batch is then made
    smaller until a process has a whole number of them.

    Raises UsageError where the lists of a batch cannot be split evenly over the processes.
    """
    share = 2 ** round(log2(sum(len(row["rejected_ids"]) for row in rows) / len(rows)))
    batch = max(1, settings.batch_size // share)
    if batch % world:
        raise UsageError(
            f"reward.batch_size {settings.batch_size} is {count_of(batch, 'list')} of about {share} pairs with reward.loss listwise, "
            f"which cannot be split over {world} processes; choose a multiple of {share * world}"
        )
    most = max(1, settings.micro_batch_size // share)
    micro = next(size for size in range(most, 0, -1) if batch // world % size == 0)
    return settings.model_copy(update={"batch_size": batch, "micro_batch_size": micro})


class Collator:
    """Builds a batch: the right programs of all rows, then their wrong programs."""

    def __init__(self, pad_token_id: int, packed: bool = False) -> None:
        self.pad_token_id = pad_token_id
        self.packed = packed

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        """A batch of R rows with P programs. T is the longest input in tokens, M the most wrong programs of a row.

        input_ids, attention_mask  [P, T]; packed: [R, T]
        completion_mask  [P, T] which tokens of its input are the program's own
        rejected         [R, M] places of each row's wrong programs among the P; 0 where it has fewer
        gap              [R, M] margins; -inf where a row has fewer wrong programs
        Packed also: `row` [P], each program's row; `scored` [P], the place in this row of the token whose score is the program's;
        `position_ids` [R, T]; `programs` [R, T], the number of the program in its row that a token belongs to, from 1, and 0 for
        the prompt and the padding
        """
        places, most = len(rows), max(len(row["rejected_ids"]) for row in rows)
        rejected, gap = [], []
        for row in rows:
            number = len(row["rejected_ids"])
            rejected.append([*range(places, places + number), *[0] * (most - number)])
            gap.append([*row["margin"], *[-torch.inf] * (most - number)])
            places += number
        batch = self._pack(rows) if self.packed else self._separate(rows)
        return batch | {"rejected": torch.tensor(rejected), "gap": torch.tensor(gap)}

    def _separate(self, rows: Sequence[Row]) -> dict[str, Any]:
        ids = [row["chosen_ids"] for row in rows] + [each for row in rows for each in row["rejected_ids"]]
        heads = [row["prompt_length"] for row in rows]
        heads += [row["prompt_length"] for row in rows for _ in row["rejected_ids"]]
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
            head = row["prompt_length"]
            ends = [each[head:] for each in (row["chosen_ids"], *row["rejected_ids"])]
            ids.append([*row["chosen_ids"][:head], *chain.from_iterable(ends)])
            positions.append(
                [*range(head), *chain.from_iterable(range(head, head + len(end)) for end in ends)]
            )
            programs.append(
                [*[0] * head, *chain.from_iterable([at] * len(end) for at, end in enumerate(ends, 1))]
            )
        number, every = pad(programs, 0), pad(ids, self.pad_token_id)
        owners = [(at, 1) for at in range(len(rows))]
        owners += [
            (at, 2 + other) for at, row in enumerate(rows) for other in range(len(row["rejected_ids"]))
        ]
        row, program = torch.tensor(owners).T
        own = number[row] == program[:, None]
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
