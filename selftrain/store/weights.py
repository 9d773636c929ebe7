"""Checks, without torch, that weights and metrics are finite before they are stored.

A floating-point number is NaN or infinite where certain of its bits are all set (`EXPONENTS`), so the check needs no arithmetic.
"""

import hashlib
import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from selftrain.errors import UsageError

BLOCK = 16 << 20
"""Bytes of a file that are read at a time."""
EXPONENTS = {
    "F64": ("<u8", 0x7FF0000000000000),
    "F32": ("<u4", 0x7F800000),
    "F16": ("<u2", 0x7C00),
    "BF16": ("<u2", 0x7F80),
    "F8_E5M2": ("u1", 0x7C),
    "F8_E4M3": ("u1", 0x7F),  # has NaN only, with all bits but the sign set
}
"""Format's name in safetensors -> numpy's name of an integer of its size, and the bits that are all set in NaN and infinity."""


SAMPLE = 4096
"""Bytes of a sample of a tensor."""


@dataclass
class Read:
    """What `read` found in a file.

    sha256   of the file, 64 hex digits
    tensors  number of tensors
    wrong    names of the tensors that hold NaN or infinities
    """

    sha256: str
    tensors: int
    wrong: list[str] = field(default_factory=list)


def header(file: IO[bytes], path: Path) -> tuple[bytes, dict[str, Any]]:
    """The bytes of a safetensors file before its first tensor, and the header parsed from them. Raises UsageError if damaged."""
    try:
        size = file.read(8)
        (length,) = struct.unpack("<Q", size)
        content = file.read(length)
        return size + content, json.loads(content)
    except (OSError, ValueError, struct.error, MemoryError) as error:
        raise UsageError(f"{path}: not a whole safetensors file: {error}") from error


def read(path: Path) -> Read:
    """Read a safetensors file once, in blocks: hash it and check its tensors. Raises UsageError where its header is damaged."""
    with path.open("rb") as file:
        head, tensors = header(file, path)
        tensors.pop("__metadata__", None)
        found = Read("", len(tensors))
        sha = hashlib.sha256(head)
        for name, tensor in sorted(tensors.items(), key=lambda item: item[1]["data_offsets"]):
            begin, end = tensor["data_offsets"]
            finite = True
            for block in _blocks(file, end - begin):
                sha.update(block)
                finite = finite and _finite(block, tensor["dtype"])
            if not finite:
                found.wrong.append(name)
        while block := file.read(BLOCK):
            sha.update(block)
    found.sha256 = sha.hexdigest()
    return found


def sha256_of_samples(path: Path) -> str:
    """sha256 over the header of a safetensors file and the beginning, middle and end of each tensor, `SAMPLE` bytes each.

    It takes milliseconds where reading the whole file takes seconds, and it tells two trained models apart, since training changes
    nearly all numbers of a tensor; not weights that somebody changed by hand between the samples. Raises UsageError where the header
    is damaged.
    """
    with path.open("rb") as file:
        head, tensors = header(file, path)
        tensors.pop("__metadata__", None)
        sha = hashlib.sha256(head)
        for tensor in tensors.values():
            begin, end = tensor["data_offsets"]
            for at in sorted({begin, max(begin, (begin + end - SAMPLE) // 2), max(begin, end - SAMPLE)}):
                file.seek(len(head) + at)
                sha.update(file.read(min(SAMPLE, end - at)))
    return sha.hexdigest()


def _blocks(file: IO[bytes], size: int) -> Iterator[bytes]:
    while size > 0 and (block := file.read(min(size, BLOCK))):
        size -= len(block)
        yield block


def _finite(block: bytes, kind: str) -> bool:
    """Whether all numbers of a block are finite. `kind`: format's name in safetensors; integers are always finite."""
    import numpy as np

    if kind not in EXPONENTS:
        return True
    integer, bits = EXPONENTS[kind]
    size = np.dtype(integer).itemsize
    numbers = np.frombuffer(block[: len(block) // size * size], integer)
    return not bool(((numbers & numbers.dtype.type(bits)) == bits).any())


def check(reads: Mapping[str, Read], what: str) -> None:
    """Raise UsageError where the artifact `what` has tensors that are not finite. `reads`: file name -> result of `read`."""
    wrong = [f"{name}: {tensor}" for name, found in reads.items() for tensor in found.wrong]
    if wrong:
        total = sum(found.tensors for found in reads.values())
        raise UsageError(
            f"{what}: {len(wrong)} of {total} tensors hold NaN or infinities ({wrong[0]}), expected finite weights, so that "
            "nothing is stored: training has diverged, lower the stage's learning_rate; or the weights that it started from "
            "are damaged"
        )


def check_figures(figures: Any, what: str) -> None:
    """Raise UsageError where the metrics (JSON values) of the artifact `what` hold NaN or infinities."""
    if wrong := list(_not_finite(figures, "figures")):
        raise UsageError(
            f"{what}: {', '.join(wrong[:3])}: expected finite numbers, so that nothing is stored; look at what the stage "
            "was given"
        )


def _not_finite(value: Any, where: str) -> Iterator[str]:
    """Texts `PATH is VALUE` for every NaN or infinity in JSON values."""
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{where} is {value}"
    items = (
        value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    )
    for name, item in items:
        yield from _not_finite(item, f"{where}.{name}")
