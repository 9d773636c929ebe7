"""Converts sources, inputs and outputs between bytes in files and strings in JSON."""

import re

_NO_BYTES = re.compile("[\ud800-\udc7f\udd00-\udfff]")


def encoded(text: str, nothing: bytes = b"?") -> bytes:
    """`text` in UTF-8. A lone surrogate U+DC80 to U+DCFF becomes the byte 0x80 to 0xFF that it stands for, as with Python's
    `errors="surrogateescape"`. Any other lone surrogate becomes `nothing`."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return nothing.join(part.encode("utf-8", "surrogateescape") for part in _NO_BYTES.split(text))


def decoded(data: bytes) -> str:
    """The inverse of `encoded`: bytes that are not UTF-8 become lone surrogates."""
    return data.decode("utf-8", "surrogateescape")


def is_text(source: bytes) -> bool:
    """Whether the source is UTF-8 without NUL. Python and javac may read other sources differently from memory and from a
    file."""
    try:
        return "\0" not in source.decode()
    except UnicodeDecodeError:
        return False
