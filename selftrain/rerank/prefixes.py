"""Passes rows of token ids through a model, where several rows continue one prefix: it is read once, and its KV cache is shared."""

import copy
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from selftrain.rerank.batches import batches

Place = tuple[int, int]
"""Number of a prefix, and number of a row among those that continue it."""


@dataclass(frozen=True)
class Reader:
    """Reads prefixes and rows.

    forward    makes a forward pass, with the arguments of transformers' models
    device     where the model is
    padding    id of the token that fills up shorter rows
    on_prefix  further arguments of a forward pass that reads prefixes, of whose output only the KV cache is used
    most       tokens of a batch's rows, with padding and without prefixes; more only if one row has more
    """

    forward: Any
    device: Any
    padding: int
    on_prefix: Mapping[str, Any] = field(default_factory=dict)
    most: int = sys.maxsize

    def read(
        self, prefixes: Sequence[Sequence[int]], rows: Sequence[Sequence[Sequence[int]]]
    ) -> Iterator[tuple[list[Place], Any]]:
        """Yields (places [n] of rows, the model's output for them), in batches of rows of similar length, until all are read.

        The output's logits are [n, longest of these rows, ...]: shorter rows are padded on the right.

        prefixes  [prefixes] token ids; may be empty
        rows      [prefixes][rows] token ids after the prefix; none is empty
        """
        for group in batches([len(prefix) for prefix in prefixes], self.device.type):
            if places := [(at, number) for at in group for number in range(len(rows[at]))]:
                yield from self._read_group([prefixes[at] for at in group], group, places, rows)

    def _read_group(
        self,
        prefixes: Sequence[Sequence[int]],
        numbers: Sequence[int],
        places: Sequence[Place],
        rows: Sequence[Sequence[Sequence[int]]],
    ) -> Iterator[tuple[list[Place], Any]]:
        """As `read`, for the prefixes with these numbers, which are read in one batch, and the rows at `places`."""
        import torch

        from selftrain.models.models import pad

        # Padded on the left, so that there is no padding between a prefix and its rows.
        before = pad([[1] * len(prefix) for prefix in prefixes], 0, left=True).to(self.device)
        width, cache = before.shape[1], None
        if width:
            cache = self.forward(
                input_ids=pad(prefixes, self.padding, left=True).to(self.device),
                attention_mask=before,
                position_ids=(before.cumsum(1) - 1).clamp(min=0),
                use_cache=True,
                **self.on_prefix,
            ).past_key_values
        line = {number: at for at, number in enumerate(numbers)}
        for batch in self._batches([len(rows[at][number]) for at, number in places], width):
            chosen = [places[at] for at in batch]
            texts = [rows[at][number] for at, number in chosen]
            own = pad([[1] * len(text) for text in texts], 0).to(self.device)
            prefix = torch.tensor([line[at] for at, _ in chosen], device=self.device)
            mask = torch.cat([before[prefix], own], 1)
            output = self.forward(
                input_ids=pad(texts, self.padding).to(self.device),
                attention_mask=mask,
                position_ids=(mask.cumsum(1) - 1)[:, width:],
                past_key_values=_select_rows(cache, prefix),
                use_cache=cache is not None,
            )
            yield chosen, output

    def _batches(self, lengths: Sequence[int], width: int) -> Iterator[list[int]]:
        """Batches of rows of these lengths, which continue prefixes padded to `width`."""
        for batch in batches([width + length for length in lengths], self.device.type):
            step = max(1, self.most // max(lengths[at] for at in batch))
            yield from (batch[start : start + step] for start in range(0, len(batch), step))


def _select_rows(cache: Any, rows: Any) -> Any:
    """A new KV cache with the rows `rows` of `cache`. A copy, since a forward pass extends the cache that it is given."""
    if cache is None:
        return None
    chosen = copy.copy(cache)
    chosen.layers = [copy.copy(layer) for layer in cache.layers]
    chosen.batch_select_indices(rows)
    return chosen
