"""Creates and updates the deployments of prefect.yaml, and keeps what was changed on the server."""

import asyncio
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
from merge import Deployed
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate
from prefect.client.schemas.objects import ConcurrencyOptions
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from prefect.deployments.steps.core import run_steps
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema
from prefect.utilities.templating import apply_values

FILE = "prefect.yaml"
KEYS = {
    "name", "entrypoint", "description", "tags", "parameters", "work_pool", "concurrency_limit", "schedules", "paused",
}  # fmt: skip
"""What a deployment of prefect.yaml may say; `prefect deploy` knows more."""


def make_deployments(client: SyncPrefectClient, file: Path, deployed: Deployed) -> None:
    """Create or update all deployments of `file`. Exits with a message for what it does not know."""
    rows, pull_steps = asyncio.run(_read(file))
    for row in rows:
        if unknown := row.keys() - KEYS:
            sys.exit(
                f"{FILE}: deployment {row.get('name')}: unknown {', '.join(unknown)}; expected {', '.join(KEYS)}"
            )
        if missing := [key for key in ("name", "entrypoint", "work_pool") if not row.get(key)]:
            sys.exit(f"{FILE}: deployment {row.get('name')}: {', '.join(missing)} missing")
        if not isinstance(row.get("tags") or [], list):
            sys.exit(f"{FILE}: deployment {row['name']}: tags: expected a list, got {row['tags']!r}")
        _make_deployment(client, row, pull_steps, deployed)


async def _read(file: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The deployments of the file, with its placeholders filled in, and the steps that precede each run."""
    content = yaml.safe_load(file.read_text())
    outputs = await run_steps(content.get("build") or [])
    return apply_values(content["deployments"], outputs), content.get("pull") or []


def _make_deployment(
    client: SyncPrefectClient, row: dict[str, Any], pull_steps: list[dict[str, Any]], deployed: Deployed
) -> None:
    try:
        flow = load_flow_from_entrypoint(row["entrypoint"])
    except (ImportError, PrefectException) as error:
        sys.exit(f"{FILE}: deployment {row['name']}: entrypoint {row['entrypoint']}: {error}")
    name, wanted = f"{flow.name}/{row['name']}", _wanted(row, flow.description)
    code = {  # follows the file and the code, whatever the server has
        "entrypoint": row["entrypoint"],
        "version": flow.version,
        "pull_steps": pull_steps,
        # A name that is no parameter is refused by the server: the run's process would crash, and start again, and again.
        "parameter_openapi_schema": parameter_schema(flow).model_dump(exclude_unset=True)
        | {"additionalProperties": False},
    }
    try:
        existing = client.read_deployment_by_name(name)
    except ObjectNotFound:
        schedules = [
            DeploymentScheduleCreate(slug=slug, **schedule) for slug, schedule in wanted["schedules"].items()
        ]
        client.create_deployment(
            client.create_flow(flow), row["name"], schedules=schedules, **_fields(wanted), **code
        )
        print(f"{name}: created")
    else:
        found = _found(existing, wanted)
        merged = deployed.merge(name, FILE, wanted, found)
        was = _fields(found) | {key: getattr(existing, key) for key in code}
        changed = {key: value for key, value in (_fields(merged) | code).items() if value != was[key]}
        if changed:
            client.update_deployment(existing.id, DeploymentUpdate(**changed))
        moved = _make_schedules(client, existing, found["schedules"], merged.get("schedules", {}))
        changes = ", ".join([*changed, *moved])
        print(f"{name}: {f'updated ({changes})' if changes else 'unchanged'}")
    deployed.remember(name, wanted)


def _wanted(row: dict[str, Any], description: str | None) -> dict[str, Any]:
    """What the file says of a deployment; `description`: that of its flow, if the file has none."""
    pool, limit = row["work_pool"], row.get("concurrency_limit")
    return {
        "description": row.get("description") or description,
        "tags": dict.fromkeys(row.get("tags") or [], True),
        "parameters": row.get("parameters") or {},
        "job_variables": pool.get("job_variables") or {},
        "work_pool_name": pool["name"],
        "work_queue_name": pool.get("work_queue_name") or "default",
        "concurrency": limit if isinstance(limit, dict) else {"limit": limit},
        "paused": bool(row.get("paused")),
        "schedules": dict(_schedule(row["name"], schedule) for schedule in row.get("schedules") or []),
    }


def _schedule(deployment: str, row: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The slug of a schedule of the file, and what it says."""
    rest = {key: value for key, value in row.items() if key not in ("slug", "active", "parameters")}
    if "slug" not in row or not ("cron" in row or "interval" in row):
        sys.exit(
            f"{FILE}: a schedule of {deployment} needs a slug, and cron or interval; it has {', '.join(row)}"
        )
    try:
        schedule = CronSchedule(**rest) if "cron" in row else IntervalSchedule(
            **rest | {"interval": timedelta(seconds=row["interval"])}
        )  # fmt: skip
    except (ValueError, TypeError) as error:  # pydantic's is a ValueError
        sys.exit(f"{FILE}: schedule {row['slug']} of {deployment}: {' '.join(str(error).split())}")
    return row["slug"], {
        "schedule": _when(schedule),
        "active": row.get("active", True),
        "parameters": row.get("parameters") or {},
    }


def _when(schedule: Any) -> dict[str, Any]:
    """A schedule as JSON values. Without the date from which an interval counts: it is the day of the deployment."""
    return dict(schedule.model_dump(mode="json", exclude={"anchor_date"}))


def _found(existing: DeploymentResponse, wanted: dict[str, Any]) -> dict[str, Any]:
    """What the server has of a deployment, in the form of `_wanted`."""
    limit, options = existing.global_concurrency_limit, existing.concurrency_options
    schedules, taken = {}, {row.slug for row in existing.schedules}
    for row in existing.schedules:
        slug = row.slug
        if slug is None:  # made in the UI, or by a version that gave no slugs
            free = [
                each
                for each, its in wanted["schedules"].items()
                if its["schedule"] == _when(row.schedule) and each not in taken
            ]
            slug = free[0] if free else str(row.id)
            taken.add(slug)
        schedules[slug] = {
            "schedule": _when(row.schedule),
            "active": row.active,
            "parameters": row.parameters,
        }
    return {
        "description": existing.description,
        "tags": dict.fromkeys(existing.tags, True),
        "parameters": existing.parameters,
        "job_variables": existing.job_variables,
        "work_pool_name": existing.work_pool_name,
        "work_queue_name": existing.work_queue_name,
        "concurrency": {"limit": limit and limit.limit}
        | (options.model_dump(mode="json") if options else {}),
        "paused": existing.paused,
        "schedules": schedules,
    }


def _fields(values: dict[str, Any]) -> dict[str, Any]:
    """The values as Prefect's API calls them, without the schedules."""
    concurrency = values.get("concurrency", {})
    rest = {key: value for key, value in concurrency.items() if key != "limit" and value is not None}
    return {
        "description": values.get("description"),
        "tags": sorted(values.get("tags") or []),
        "parameters": values.get("parameters", {}),
        "job_variables": values.get("job_variables", {}),
        "work_pool_name": values.get("work_pool_name"),
        "work_queue_name": values.get("work_queue_name"),
        "concurrency_limit": concurrency.get("limit"),
        "concurrency_options": ConcurrencyOptions(**rest) if rest else None,
        "paused": values.get("paused"),
    }


def _make_schedules(
    client: SyncPrefectClient, existing: DeploymentResponse, found: dict[str, Any], merged: dict[str, Any]
) -> list[str]:
    """Change the schedules that differ, and leave the others as they are; returns the names of the changed ones."""
    ids = dict(zip(found, (row.id for row in existing.schedules), strict=True))
    # One that was changed on the server and is gone from the file is kept as a whole.
    merged = {slug: found.get(slug, {}) | values for slug, values in merged.items()}
    changed = [slug for slug in found | merged if found.get(slug) != merged.get(slug)]
    for slug in changed:
        wanted = merged.get(slug)
        if wanted is None:
            client.delete_deployment_schedule(existing.id, ids[slug])
        elif slug in found:
            schedule = DeploymentScheduleCreate(**wanted)
            client.update_deployment_schedule(
                existing.id, ids[slug], schedule.active, schedule.schedule, parameters=schedule.parameters
            )
        else:
            client.create_deployment_schedules(existing.id, [DeploymentScheduleCreate(slug=slug, **wanted)])
    return [f"schedule {slug}" for slug in changed]
