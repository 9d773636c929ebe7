"""Reads the records in a store: those of runs, and those of the decisions on who is champion."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from selftrain.errors import StoreError
from selftrain.store.runfile import is_ref
from selftrain.store.store import REGISTRY, RUNS, Store


def run_records(store: Store) -> dict[str, Any]:
    """NAME/ID.json -> the record of a run, with its `name`, `stages` and time (`when`).

    Raises StoreError where a file cannot be read, or is something else: which artifacts are needed is then not known.
    """
    records = _json_files(store, RUNS)
    for name, record in records.items():
        if wrong := _no_run(record):
            raise StoreError(
                f"{store.url}/{RUNS}/{name} is no record of a run ({wrong}): move or delete it. Nothing was removed"
            )
    return records


def registry_records(store: Store) -> dict[str, Any]:
    """NAME/NUMBER.json -> the record of a decision. Raises StoreError as `run_records` does."""
    records = _json_files(store, REGISTRY)
    for name, record in records.items():
        if re.fullmatch(r"[^/]+/\d+\.json", name) and "champion" not in _mapping(record):
            raise StoreError(
                f"{store.url}/{REGISTRY}/{name} is no record of a decision (it names no champion): restore or delete it. Nothing "
                "was removed"
            )
    return records


def when(record: Mapping[str, Any]) -> float:
    """When a run wrote its record, seconds since 1970."""
    return float(record["finished"] if record.get("updated") is None else record["updated"])


def _json_files(store: Store, folder: str) -> dict[str, Any]:
    """Name -> content. Raises StoreError where a file cannot be read."""
    found = {}
    for name in store.files.listing(f"{store.root}/{folder}"):
        if not name.endswith(".json"):
            continue
        try:
            found[name] = json.loads(store.files.read(f"{store.root}/{folder}/{name}"))
        except FileNotFoundError:  # deleted after it was listed
            continue
        except (ValueError, RecursionError) as error:
            raise StoreError(
                f"{store.url}/{folder}/{name} is damaged ({error}), expected JSON: delete or repair it. Nothing was removed"
            ) from None
    return found


def _no_run(record: Any) -> str:
    """Why `record` is not what a run writes; empty if it is."""
    record = _mapping(record)
    times = [record.get(name) for name in ("finished", "updated") if record.get(name) is not None]
    if not isinstance(record.get("name"), str):
        return "it has no name"
    if not times or not all(_is_time(value) for value in times):
        return "it says no time"
    stages = record.get("stages")
    if not isinstance(stages, Mapping):
        return "it has no stages"
    wrong = [name for name, ref in stages.items() if not is_ref(ref)]
    return f"its stage {wrong[0]} names no artifact" if wrong else ""


def _mapping(value: Any) -> Mapping[str, Any]:
    """`value` if it is an object, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
