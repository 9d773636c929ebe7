"""Formats seconds, bytes and lists of names for people."""

from collections.abc import Sequence


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


def size(count: float) -> str:
    """Format a number of bytes, such as `512 B`, `3.0 MiB`."""
    for unit, least in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= least:
            return f"{count / least:.1f} {unit}"
    return f"{count:.0f} B"
