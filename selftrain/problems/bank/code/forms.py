"""Lines of code that differ only in an expression, and what languages do to the same expression."""

import re
from collections.abc import Mapping


def filled(template: str, parts: Mapping[str, str]) -> dict[str, str]:
    """Operation -> `template` with the operation's expression in place of `<>`."""
    return {name: template.replace("<>", part) for name, part in parts.items()}


def strict(lines: Mapping[str, str]) -> dict[str, str]:
    """`lines` with `===` and `!==`, which JavaScript and PHP have for values of one type."""
    return {name: re.sub("([=!])=", r"\1==", line) for name, line in lines.items()}


def php(lines: Mapping[str, str]) -> dict[str, str]:
    """`lines` with PHP's comparisons and names of variables."""
    return {name: re.sub(r"\b([nx])\b", r"$\1", line) for name, line in strict(lines).items()}
