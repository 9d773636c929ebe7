"""Test data: small problems written by hand, and files that contain them."""

import gzip
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PY_STOP = ["\ndef", "\n#", "\nif", "\nclass"]
SH_STOP = ["\n}"]


def py_row(name: str, text: str, function: str = "f", **extra: Any) -> dict[str, Any]:
    """A MultiPL-E row whose function doubles its number, with `text` for its description."""
    return {
        "name": name,
        "language": "py",
        "prompt": f'def {function}(n: int) -> int:\n    """ {text}\n    """\n',
        "tests": f"assert {function}({_number(text)}) == {2 * _number(text)}  # {function} doubles\n",
        "stop_tokens": PY_STOP,
    } | extra


def sh_row(name: str, text: str, function: str = "f", **extra: Any) -> dict[str, Any]:
    """The same in Bash."""
    checked = f'[[ $(candidate "{_number(text)}") = "{2 * _number(text)}" ]]'
    return {
        "name": name,
        "language": "sh",
        "prompt": f"#!/bin/bash\n# {text}\n#\n# $1 is an integer\n{function}() {{\n",
        "tests": f'}}\n\ncandidate() {{\n    {function} "$@"\n}}\n\nset -e\n{checked}\n',
        "stop_tokens": SH_STOP,
    } | extra


def _number(text: str) -> int:
    """A number that another text does not have, so that different problems have different tests."""
    return zlib.crc32(text.encode())


def write_jsonl(path: Path, rows: Sequence[Any]) -> Path:
    """`rows`, one JSON object a line; gzipped where the name ends so."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


DESCRIPTIONS = (
    "Multiply the given whole number by two.",
    "Count the petals on every flower of the garden.",
    "Tell how many legs that many spiders have together.",
    "Measure the way from the tower down to the harbour.",
    "Find out what the baker owes the miller on Friday.",
    "Say which step of the ladder the cat sits on.",
    "Weigh the apples left after the wasps came by.",
    "Give the hour at which both trains pass the bridge.",
    "Compute the price of planks for a fence around it.",
    "Name the seat number of the last guest to arrive.",
    "Work out how long the candle burns after midnight.",
    "Guess the depth of the lake under the old boat.",
)
"""Descriptions of different problems."""
