"""Detects the processor's instruction sets that change sampling results.

Without VNNI instructions (AVX2, first-generation AVX-512), CTranslate2 sums int8 products in 16 bits. These sums saturate; the
measured error of log-probabilities is 0.14 nats per token. In float32, results on different processors differ only in the last
bits.
"""

import os
import platform
import re
from pathlib import Path

INTERESTING = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "amx_bf16")
"""Instruction sets that are looked for."""
CPUINFO = Path("/proc/cpuinfo")
WITHOUT = ("GENERIC", "AVX", "AVX2")
"""Values of the environment variable CT2_FORCE_CPU_ISA with which CTranslate2 does not use VNNI."""


def flags() -> list[str]:
    """The instruction sets in INTERESTING that this machine's first processor has; none without CPUINFO."""
    try:
        text = CPUINFO.read_text()
    except OSError:
        return []
    found = re.search(r"^flags\s*:(.*)", text, re.MULTILINE)
    return [name for name in INTERESTING if found and name in found[1].split()]


def adds_exactly() -> bool:
    """Whether CTranslate2's int8 arithmetic is exact on this processor: sums of 8-bit products do not saturate."""
    if os.environ.get("CT2_FORCE_CPU_ISA", "").upper() in WITHOUT:
        return False
    return platform.machine() in ("arm64", "aarch64") or any("vnni" in name for name in flags())
