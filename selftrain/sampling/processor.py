"""The processor's instruction sets, as far as results depend on them.

Without VNNI instructions (AVX2, first-generation AVX-512), int8 products are summed in 16 bits. These sums saturate, and
log-probabilities were off by 0.14 nats a token. In float32, processors differ in the last bits only.

    python -m selftrain.sampling.processor        prints the processor's name and instruction sets
"""

import os
import platform
from pathlib import Path

INTERESTING = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "amx_bf16")
WITHOUT = ("GENERIC", "AVX", "AVX2")
"""Values of CT2_FORCE_CPU_ISA that leave VNNI unused."""


def described() -> dict[str, str]:
    """The first processor's fields in /proc/cpuinfo; empty where that file does not exist."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {}
    lines = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in lines}


def flags() -> list[str]:
    """The instruction sets of INTERESTING that the processor has."""
    found = described().get("flags", "").split()
    return [name for name in INTERESTING if name in found]


def adds_exactly() -> bool:
    """Whether sums of 8-bit products are exact in CTranslate2's int8 arithmetic here."""
    if os.environ.get("CT2_FORCE_CPU_ISA", "").upper() in WITHOUT:
        return False
    return platform.machine() in ("arm64", "aarch64") or any("vnni" in name for name in flags())


if __name__ == "__main__":
    print(
        f"processor: {described().get('model name', platform.machine())}, {' '.join(flags()) or 'none of'} "
        f"(of {' '.join(INTERESTING)})"
    )
