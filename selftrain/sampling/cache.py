"""A KV cache with room for the tokens to come: transformers' own copies all its keys and values at each token."""

from typing import Any

import torch
from transformers.cache_utils import DynamicLayer


class Preallocated(DynamicLayer):
    """A layer's keys and values [rows, heads, tokens, size] in memory that holds `longest` tokens; more cannot be added."""

    def __init__(self, layer: DynamicLayer, longest: int) -> None:
        super().__init__()
        self.lazy_initialization(layer.keys, layer.values)
        self.longest = longest
        self._hold(layer.keys, layer.values)

    def _hold(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        rows, heads, _, size = keys.shape
        self._all_keys = keys.new_empty(rows, heads, self.longest, size)
        self._all_values = values.new_empty(rows, heads, self.longest, values.shape[-1])
        self._used = 0
        self.update(keys, values)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add the keys and values of new tokens. Returns those of all tokens."""
        start, self._used = self._used, self._used + key_states.shape[-2]
        self._all_keys[:, :, start : self._used] = key_states
        self._all_values[:, :, start : self._used] = value_states
        self.keys, self.values = self._all_keys[:, :, : self._used], self._all_values[:, :, : self._used]
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep only these rows."""
        self._hold(self.keys[indices], self.values[indices])


def preallocate(cache: Any, tokens: int) -> None:
    """Give the layers of `cache`, a model's after its first forward pass, room for `tokens` more.

    Layers that do not keep everything, such as those with a sliding window, stay as they are.
    """
    cache.layers = [
        Preallocated(layer, layer.get_seq_length() + tokens) if type(layer) is DynamicLayer else layer
        for layer in cache.layers
    ]
