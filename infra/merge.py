"""Merges what a file wants with what was changed on the Prefect server since the last deployment.

A value on the server that is still the one that the last `make deploy` set follows the file. Any other was changed on the server:
it is kept, and printed where it differs from the file. What the last deployment set is in a Prefect variable per object, as a digest
of each path and one of its value: no value is stored twice, and a variable holds 5000 characters.
"""

import copy
import hashlib
import json
import re
from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import VariableCreate, VariableUpdate

Path = tuple[str, ...]
DEPTH = 3
"""Levels of dicts whose items are compared one by one; what lies deeper is compared as a whole."""
LONGEST = 100
"""Characters of a printed value."""


def flat(value: dict[str, Any], depth: int) -> dict[Path, Any]:
    """The values of nested dicts by their path, e.g. {("parameters", "config"): "prod"}."""
    found: dict[Path, Any] = {}
    for key, item in value.items():
        if isinstance(item, dict) and item and depth > 1:
            found |= {(key, *path): leaf for path, leaf in flat(item, depth - 1).items()}
        else:
            found[(key,)] = item
    return found


def nested(values: dict[Path, Any]) -> dict[str, Any]:
    """The inverse of `flat`. Where one path continues another, the longer one counts."""
    whole: dict[str, Any] = {}
    for path in sorted(values, key=len):
        at = whole
        for key in path[:-1]:
            if not isinstance(at.get(key), dict):
                at[key] = {}
            at = at[key]
        at[path[-1]] = copy.deepcopy(values[path])  # an empty one is filled by longer paths
    return whole


def digest(value: Any) -> str | None:
    """A short digest of a JSON value; None of None, which stands for a value that is not there."""
    if value is None:
        return None
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def digests(values: dict[Path, Any]) -> dict[str, str | None]:
    """What a deployment that set `values` is remembered by."""
    return {_key(path): digest(value) for path, value in values.items()}


def _key(path: Path) -> str:
    return hashlib.sha256(".".join(path).encode()).hexdigest()[:8]


def merge(
    wanted: dict[Path, Any], found: dict[Path, Any], deployed: dict[str, str | None] | None, force: bool
) -> tuple[dict[Path, Any], list[Path]]:
    """The values to have on the server, and the paths of those that differ from the file's and are kept.

    wanted, found  the file's values and the server's
    deployed       `digests` of the values that the last deployment set; None if that is unknown, and then all of the server's are kept
    force          take all of the file's
    """
    merged, kept = {}, []
    for path in wanted | found:
        file, server = wanted.get(path), found.get(path)
        unchanged = deployed is not None and deployed.get(_key(path)) == digest(server)
        from_file = file == server or force or unchanged
        source = wanted if from_file else found
        if path in source:
            merged[path] = source[path]
        if not from_file:
            kept.append(path)
    return merged, kept


class Deployed:
    """Digests of the values that the last deployment set on a server, in Prefect variables `selftrain_deployed_NAME`."""

    def __init__(self, client: SyncPrefectClient, force: bool) -> None:
        self.client, self.force = client, force

    def merge(
        self, name: str, file: str, wanted: dict[str, Any], found: dict[str, Any], depth: int = DEPTH
    ) -> dict[str, Any]:
        """The values that the object `name` is to have; prints those that are kept although `file` says otherwise."""
        ours, theirs = flat(wanted, depth), flat(found, depth)
        variable = self.client.read_variable_by_name(self._variable(name))
        deployed = None if variable is None else dict(variable.value)
        merged, kept = merge(ours, theirs, deployed, self.force)
        if kept:
            print(f"{name}: differs from {file} and is kept (FORCE=1 overwrites it):")
        for path in kept:
            print(f"  {'.'.join(path)}: {_text(path, theirs)} ({file}: {_text(path, ours)})")
        return nested(merged)

    def knows(self, name: str) -> bool:
        """Whether an earlier deployment set the object `name`."""
        return self.client.read_variable_by_name(self._variable(name)) is not None

    def remember(self, name: str, wanted: dict[str, Any], depth: int = DEPTH) -> None:
        """Store what the file wants of the object `name`, after it was set."""
        value = digests(flat(wanted, depth))
        variable = self._variable(name)
        if self.client.read_variable_by_name(variable) is None:
            self.client.create_variable(VariableCreate(name=variable, value=value))
        else:
            self.client.update_variable(VariableUpdate(name=variable, value=value))

    @staticmethod
    def _variable(name: str) -> str:
        return f"selftrain_deployed_{re.sub('[^a-z0-9]', '_', name.lower())}"


def _text(path: Path, values: dict[Path, Any]) -> str:
    """A value for people. Those of environment variables may be secrets and are not shown."""
    if path not in values:
        return "none"
    text = json.dumps(values[path])
    if "env" in path or '"env"' in text:
        return "set"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
