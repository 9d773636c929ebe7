"""Formats seconds, bytes, lists of names and texts of others for people."""

import re
from collections.abc import Sequence

UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
"""Characters that would be invisible, would steer the terminal, or would reorder what one reads, but for tabs and line feeds."""


def duration(seconds: float) -> str:
    """Format a duration, such as `0.4 s`, `42 s`, `2 min 03 s`, `1 h 05 min`, `3 d 02 h`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02} h"


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first `most` names and the number of the others, such as `a, b and 7 more`."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def count_of(count: int, one: str, several: str | None = None) -> str:
    """A number of things, such as `0 problems`, `1 problem`, `2 problems`. `several`: what replaces `one` + s."""
    return f"{count} {one if count == 1 else several or f'{one}s'}"


def doublings(most: int) -> list[int]:
    """The powers of two below `most`, and `most`."""
    return [2**power for power in range(most.bit_length()) if 2**power < most] + [most]


def none_of(count: int, one: str) -> str:
    """The subject of a sentence with a verb in the singular: `none of the 2 pairs`, or `not even the only pair`."""
    return f"not even the only {one}" if count == 1 else f"none of the {count_of(count, one)}"


def size(count: float) -> str:
    """Format a number of bytes, such as `512 B`, `3.0 MiB`."""
    for unit, least in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= least:
            return f"{count / least:.1f} {unit}"
    return f"{count:.0f} B"


def visible(text: str) -> str:
    """A text that a model or a stranger wrote, for a terminal: characters of `UNSEEN` are shown by their code, such as `<U+001B>`."""
    return UNSEEN.sub(lambda found: f"<U+{ord(found[0]):04X}>", text.replace("\r\n", "\n"))
