"""Text that stands for bytes: sources, inputs and outputs are JSON strings on their way, and files at its end."""

import re

_NO_BYTES = re.compile("[\ud800-\udc7f\udd00-\udfff]")


def encoded(text: str, nothing: bytes = b"?") -> bytes:
    """UTF-8; a byte that no UTF-8 has is the lone surrogate U+DC80 to U+DCFF, as Python reads it from files with
    `errors="surrogateescape"`. Other lone surrogates, which stand for nothing, become `nothing`."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return nothing.join(part.encode("utf-8", "surrogateescape") for part in _NO_BYTES.split(text))


def decoded(data: bytes) -> str:
    """The text that `encoded` makes `data` of."""
    return data.decode("utf-8", "surrogateescape")
