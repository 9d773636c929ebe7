"""Reads the JSON records in a store that are not artifacts: those of runs and of decisions about the champion."""

import json
from typing import Any

from selftrain.errors import StoreError
from selftrain.store.store import Store


def read_records(store: Store, folder: str) -> dict[str, Any]:
    """The JSON files under `folder` of the store: name -> content. Raises StoreError where a file cannot be read."""
    records = {}
    for name in store.files.listing(f"{store.root}/{folder}"):
        if not name.endswith(".json"):
            continue
        try:
            records[name] = json.loads(store.files.read(f"{store.root}/{folder}/{name}"))
        except FileNotFoundError:  # deleted after it was listed
            continue
        except ValueError as error:
            raise StoreError(
                f"{store.url}/{folder}/{name} is damaged ({error}), expected JSON: delete or repair it. Nothing was removed"
            ) from None
    return records
