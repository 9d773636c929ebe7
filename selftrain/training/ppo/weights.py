"""A model's whole weights, however the ranks hold them."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor


def whole(module: Any) -> Iterator[tuple[str, Tensor]]:
    """Each parameter's name and whole tensor, tied ones once; every rank must go through all of them.

    Where ZeRO stage 3 keeps a shard in each rank, the ranks put one parameter together at a time: copy it before going on.
    """
    for name, parameter in module.named_parameters():
        if hasattr(parameter, "ds_id"):
            import deepspeed

            with deepspeed.zero.GatheredParameters([parameter]):
                yield name, parameter.detach()
        else:
            yield name, parameter.detach()
