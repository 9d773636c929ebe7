"""The arithmetic of scoring: bfloat16 where a reranker was trained in it, else float32, on GPUs with TF32's products."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def compute_as_trained(model: Any) -> Any:
    """The reranker `model`, from now on in bfloat16 if it was trained with `reward.compute_type` bfloat16; else unchanged.

    Under ZeRO stage 3 this rank's shards change too.
    """
    return narrowed(model) if getattr(model.config, "compute_type", None) == "bfloat16" else model


def narrowed(model: Any) -> Any:
    """The one-label classifier `model`, from now on in bfloat16. Its score head, with the weights that bfloat16 has, computes in
    float32: in bfloat16 scores about 5 could only differ by 0.03 or not at all."""
    import torch

    if model.dtype is torch.bfloat16:
        return model
    model.bfloat16().score.float()
    model.score.register_forward_pre_hook(lambda _, states: (states[0].float(),))
    for parameter in model.parameters():
        if hasattr(parameter, "ds_tensor"):
            parameter.ds_tensor.data = parameter.ds_tensor.data.bfloat16().to(parameter.dtype)
    return model


@contextmanager
def tensor_cores(device: str) -> Iterator[None]:
    """On a GPU, multiply float32 matrices in TF32 (10 bits of mantissa, sums in float32) within the context: several times faster.

    device  the type of the model's device; no effect on others than cuda
    """
    from torch.backends.cuda import matmul

    before = matmul.fp32_precision
    if device == "cuda":
        matmul.fp32_precision = "tf32"
    try:
        yield
    finally:
        matmul.fp32_precision = before
