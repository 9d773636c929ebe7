"""Divides the reranker's input rows into batches of similar length, with a maximum number of tokens."""

from collections.abc import Sequence

BATCH_TOKENS = {"cpu": 1024}
"""Maximum tokens per batch by device type, including prompts and padding. On CPU, a batch that fits into the cache is faster."""
OTHER_BATCH_TOKENS = 16_384
"""Maximum tokens per batch on device types that are not in BATCH_TOKENS."""


def batches(lengths: Sequence[int], device: str) -> list[list[int]]:
    """Divide rows into batches; returns the row numbers of each batch.

    A batch with padding has at most the maximum tokens for `device`; a row that is longer is a batch by itself.

    lengths  [rows] number of tokens of each row
    device   device type, such as cpu
    """
    most = BATCH_TOKENS.get(device, OTHER_BATCH_TOKENS)
    found: list[list[int]] = []
    for at in sorted(range(len(lengths)), key=lambda at: lengths[at]):
        if found and (len(found[-1]) + 1) * lengths[at] <= most:
            found[-1].append(at)
        else:
            found.append([at])
    return found
