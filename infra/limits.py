"""Creates and updates the limits of infra/pools.yaml, whose slots `tasks.slots` takes, and keeps what was changed on the server."""

import re
import sys
from typing import Any

from merge import Deployed
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, GlobalConcurrencyLimitUpdate
from prefect.client.schemas.responses import GlobalConcurrencyLimitResponse

from tasks.tags import RESOURCES

FILE = "infra/pools.yaml"
NAME = re.compile(rf"({'|'.join(RESOURCES)})(-[a-z0-9-]+)?")
"""The limit of all machines, or one that a worker's SELFTRAIN_GPU_LIMIT or SELFTRAIN_SANDBOX_LIMIT names."""
PAGE = 200
"""Limits per answer of the server, its largest."""


def make_limits(client: SyncPrefectClient, content: dict[str, Any], deployed: Deployed) -> None:
    """Create, update and delete limits. Exits with a message for what the file's `content` may not say."""
    wanted = {name: {"limit": slots, "active": True} for name, slots in wanted_limits(content).items()}
    found = _found(client)
    if not deployed.knows("limits"):  # none of them was deleted on the server
        for name in wanted.keys() - found.keys():
            client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, **wanted[name]))
        found = wanted | found
    merged = deployed.merge("limits", FILE, wanted, found)
    for name in found | merged:
        values = merged.get(name, {})
        if not values and name in found:
            client.delete_global_concurrency_limit_by_name(name)
        elif name in found and values.items() - found[name].items():
            client.update_global_concurrency_limit(name, GlobalConcurrencyLimitUpdate(**values))
        elif name not in found and "limit" in values:
            client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, **values))
    deployed.remember("limits", wanted)


def wanted_limits(content: dict[str, Any]) -> dict[str, int]:
    """Name of a limit -> its slots, as the file says. Exits with a message for an unknown name and for less than one slot."""
    limits = content.get("limits") or {}
    if not isinstance(limits, dict):
        sys.exit(f"{FILE}: limits: expected names and slots, e.g. `gpu: 1`, got {limits!r}")
    for name, slots in limits.items():
        if not NAME.fullmatch(str(name)):
            sys.exit(
                f"{FILE}: limits: unknown name {name}; expected {' or '.join(RESOURCES)}, or one for some machines, e.g. gpu-b"
            )
        at_least_one(f"limits: {name}", slots)
    return dict(limits)


def at_least_one(key: str, value: Any) -> int:
    """`value`, a whole number from 1 on. Exits with a message for anything else."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        sys.exit(f"{FILE}: {key}: expected a whole number, at least 1, got {value!r}")
    return value


def _found(client: SyncPrefectClient) -> dict[str, dict[str, Any]]:
    """The server's limits of such names."""
    rows: list[GlobalConcurrencyLimitResponse] = []
    page = None
    while page is None or len(page) == PAGE:
        page = client.read_global_concurrency_limits(limit=PAGE, offset=len(rows))
        rows += page
    return {row.name: {"limit": row.limit, "active": row.active} for row in rows if NAME.fullmatch(row.name)}
