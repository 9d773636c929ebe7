"""Tests of the KV cache with room for the tokens to come."""

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from selftrain.sampling.cache import preallocate


def _states(rows, tokens):
    """[rows, 2 heads, tokens, size 3]."""
    return torch.randn(rows, 2, tokens, 3)


def _cache(*layers):
    cache = DynamicCache()
    cache.layers = list(layers)
    return cache


def test_it_holds_what_a_growing_cache_holds_in_one_place():
    ours, theirs = _cache(DynamicLayer()), _cache(DynamicLayer())
    prompt = _states(3, 5), _states(3, 5)
    for cache in (ours, theirs):
        cache.update(*prompt, 0)
    preallocate(ours, 2)
    places = set()
    for _ in range(2):
        token = _states(3, 1), _states(3, 1)
        kept = theirs.update(*token, 0)
        found = ours.update(*token, 0)
        assert all(map(torch.equal, found, kept))
        places.add(found[0].data_ptr())
    assert len(places) == 1
    assert ours.get_seq_length() == 7


def test_rows_leave_it_and_tokens_still_find_room():
    cache = _cache(DynamicLayer())
    first, second = _states(3, 4), _states(3, 1)
    cache.update(*[first] * 2, 0)
    preallocate(cache, 2)
    cache.update(*[second] * 2, 0)
    kept = torch.tensor([2, 0])
    cache.batch_select_indices(kept)
    last = _states(2, 1)
    keys, values = cache.update(*[last] * 2, 0)
    assert torch.equal(keys, torch.cat([first[kept], second[kept], last], 2))
    assert torch.equal(values, keys)


def test_a_layer_with_a_sliding_window_stays():
    whole, sliding = DynamicLayer(), DynamicSlidingWindowLayer(4)
    cache = _cache(whole, sliding)
    for layer in (0, 1):
        cache.update(_states(1, 6), _states(1, 6), layer)
    preallocate(cache, 1)
    assert cache.layers[0] is not whole
    assert cache.layers[1] is sliding
