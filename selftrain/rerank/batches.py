"""How many tokens the reranker scores at once, and which candidates share a batch."""

from collections.abc import Sequence

BATCH_TOKENS = {"cpu": 1024}
"""Most tokens of a batch by device, prompts and padding included; on CPU a batch that fits the core's cache is faster."""
OTHER_BATCH_TOKENS = 16_384
"""Most tokens of a batch on devices that are not in BATCH_TOKENS."""


def batches(lengths: Sequence[int], device: str) -> list[list[int]]:
    """Row numbers in batches of similar length, each of at most the device type's BATCH_TOKENS tokens with padding."""
    most = BATCH_TOKENS.get(device, OTHER_BATCH_TOKENS)
    found: list[list[int]] = []
    for at in sorted(range(len(lengths)), key=lambda at: lengths[at]):
        if found and (len(found[-1]) + 1) * lengths[at] <= most:
            found[-1].append(at)
        else:
            found.append([at])
    return found
