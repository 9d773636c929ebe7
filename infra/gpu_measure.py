"""What `infra.gpu_check` knows and measures of a card: its peak, and the memory in use."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from selftrain.store.lease import in_background

PEAKS = {
    "B200": 2250, "GH200": 989, "H200": 989, "H100 PCIe": 756, "H100": 989, "H20": 148, "A100": 312, "A800": 312, "A40": 150,
    "A30": 165, "A10G": 70, "A10": 125, "L40S": 362, "L40": 181, "L4": 121, "RTX 6000 Ada": 364, "RTX A6000": 155, "4090": 165,
    "3090": 71,
}  # fmt: skip
"""Part of a card's name -> its peak in bf16, TFLOP/s without sparsity, from the makers' data sheets; the first that fits counts."""


@contextmanager
def peak_memory(device: str) -> Iterator[list[int]]:
    """A list whose only number is the most bytes in use meanwhile: on the fullest GPU, beyond what was in use before; on a CPU,
    resident in the largest of this process's descendants. It is 0 where that ended before it was first looked at."""
    found = [0]
    measure = _used_on_gpus if device == "cuda" else _used_by_children
    before = measure() if device == "cuda" else 0

    def watch(over: threading.Event) -> None:
        while not over.wait(0.05):
            found[0] = max(found[0], measure() - before)

    with in_background(watch):
        yield found


def _used_on_gpus() -> int:
    import torch

    found = (torch.cuda.mem_get_info(at) for at in range(torch.cuda.device_count()))
    return max(total - free for free, total in found)


def _used_by_children() -> int:
    import psutil

    sizes = [0]
    for child in psutil.Process().children(recursive=True):
        try:
            sizes.append(child.memory_info().rss)
        except psutil.Error:  # it has ended
            continue
    return max(sizes)


def peak_of(name: str) -> float | None:
    """Peak of the card with this name, FLOP/s in bf16; None for an unknown card."""
    return next((tflops * 1e12 for part, tflops in PEAKS.items() if part in name), None)
