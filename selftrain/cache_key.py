"""Computes cache keys: the first 32 hex digits of the sha256 of values in canonical JSON.

The values are those of `Stage.identity`. Nothing else enters a key: no code, path, worker or device.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from selftrain.errors import UsageError

KEY_LENGTH = 32
"""Number of hex digits of the sha256 that a key has: 128 bits."""


def canonical_json(value: Any, where: str, whole: bool = True) -> Any:
    """Convert `value` to JSON types. Raises UsageError, which names the part, if a part of it has no stable JSON form.

    where  name of `value` in error messages
    whole  if False, the fields that a model names in its `outside_keys` are left out, and those in its `keyed_when_set` where
           they are at their defaults
    """
    if isinstance(value, BaseModel):
        left_out: frozenset[str] = frozenset()
        if not whole:
            unset: frozenset[str] = getattr(value, "keyed_when_set", frozenset())
            fields = type(value).model_fields
            left_out = getattr(value, "outside_keys", frozenset()) | {
                name for name in unset if getattr(value, name) == fields[name].default
            }
        names = [name for name in type(value).model_fields if name not in left_out]
        return {name: canonical_json(getattr(value, name), f"{where}.{name}", whole) for name in names}
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise UsageError(
                    f"{where}: a key cannot hold {name!r} as a field name; expected text, got {type(name).__name__}"
                )
        return {name: canonical_json(item, f"{where}.{name}", whole) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [canonical_json(item, f"{where}[{at}]", whole) for at, item in enumerate(value)]
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise UsageError(
        f"{where}: {value!r} ({type(value).__name__}) has no stable JSON form, so it cannot be part of a key; "
        "use text, numbers, lists and dicts (a sorted list for a set, the file's sha256 for a path)"
    )


def fingerprint(value: Any) -> str:
    """The first 32 hex digits of the sha256 of `value`'s canonical JSON."""
    return hashlib.sha256(canonical_text(value, "key").encode()).hexdigest()[:KEY_LENGTH]


def canonical_text(value: Any, where: str) -> str:
    """The canonical JSON of `value` as text."""
    return json.dumps(canonical_json(value, where), sort_keys=True, separators=(",", ":"), allow_nan=False)
