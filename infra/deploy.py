"""Creates the work pool, its limits, the automations and the deployments of prefect.yaml on the server of PREFECT_API_URL.

python infra/deploy.py [process | docker | kubernetes] [--force]

The pool `selftrain` uses Prefect's job template for its type, with the default values of infra/pools.yaml; for Kubernetes the
Job manifest is infra/kubernetes/job.yaml. The limits are those of pools.yaml, see limits.py, the automations those of automation.py.
What was changed on the server is kept and printed, see merge.py; `--force` overwrites it. This command is idempotent.
"""

import argparse
import copy
import os
import sys
from pathlib import Path
from typing import Any

import yaml
from automation import make_automations
from deployments import FILE, make_deployments
from limits import at_least_one, make_limits
from merge import Deployed
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectNotFound

HERE = Path(__file__).parent
NAME = "selftrain"
TYPES = ("process", "docker", "kubernetes")
VARIABLES = {
    "gpus": ("GPUs", "integer", "GPUs of the run's pod."),
    "node_selector": ("Node selector", "object", "Labels of the nodes that the run's pod may be on."),
    "tolerations": ("Tolerations", "array", "Taints of nodes that the run's pod may be on all the same."),
    "shared_memory": ("Shared memory", "string", "Size of /dev/shm; it is part of the pod's memory."),
    "work_storage": ("Work storage", "string", "Size of the volume of the run's builds and read cache."),
    "storage_class": (
        "Storage class",
        "string",
        "Storage class of that volume; the cluster's default if empty.",
    ),
}
"""Job variables of infra/kubernetes/job.yaml that Prefect's own template for Kubernetes does not have: title, type, description."""
IMAGE = "SELFTRAIN_IMAGE"
"""The environment variable with the image of runs in containers, where it is not that of pools.yaml."""
DEPTH = 4
"""Levels of a job template that are compared one by one: variables, properties, the name of a variable, its default."""


def settings() -> dict[str, Any]:
    """The content of pools.yaml."""
    return dict(yaml.safe_load((HERE / "pools.yaml").read_text()))


def job_template(kind: str, default: dict[str, Any]) -> dict[str, Any]:
    """`default`, Prefect's job template for the pool type `kind`, with the default values of pools.yaml."""
    template = copy.deepcopy(default)
    properties = template["variables"]["properties"]
    if kind == "kubernetes":
        template["job_configuration"]["job_manifest"] = yaml.safe_load(
            (HERE / "kubernetes" / "job.yaml").read_text()
        )
        properties |= {
            name: {"title": title, "type": type_, "description": text}
            for name, (title, type_, text) in VARIABLES.items()
        }
    values = settings()[kind]
    if "image" in values and os.environ.get(IMAGE):
        values["image"] = os.environ[IMAGE]
    for name, value in values.items():
        if value is not None:
            properties[name]["default"] = value
    return template


def make_pool(client: SyncPrefectClient, kind: str, deployed: Deployed) -> None:
    """Create the pool, or update it. Exits with a message if the pool exists with another type."""
    collections = client.read_worker_metadata()
    default = next(workers[kind] for workers in collections.values() if kind in workers)
    template = job_template(kind, default["default_base_job_configuration"])
    runs = settings().get("runs")  # none: no limit
    limit = None if runs is None else at_least_one("runs", runs)
    wanted = template | {"runs": limit}
    try:
        pool = client.read_work_pool(NAME)
    except ObjectNotFound:
        client.create_work_pool(
            WorkPoolCreate(name=NAME, type=kind, base_job_template=template, concurrency_limit=limit)
        )
    else:
        if pool.type != kind:
            sys.exit(
                f"the work pool {NAME} is of type {pool.type}, not {kind}: run `make deploy POOL={pool.type}`, or delete the pool first "
                f"with `prefect work-pool delete {NAME}`"
            )
        found = pool.base_job_template | {"runs": pool.concurrency_limit}
        merged = deployed.merge("pool", "infra", wanted, found, DEPTH)
        if merged != found:
            runs = merged.pop("runs", None)
            client.update_work_pool(NAME, WorkPoolUpdate(base_job_template=merged, concurrency_limit=runs))
    deployed.remember("pool", wanted, DEPTH)


def main() -> None:
    """Create everything."""
    command = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command.add_argument("kind", nargs="?", default="process", choices=TYPES, help="type of the work pool")
    command.add_argument("--force", action="store_true", help="overwrite what was changed on the server")
    options = command.parse_args()
    os.chdir(HERE.parent)
    with get_client(sync_client=True) as client:
        deployed = Deployed(client, options.force)
        make_pool(client, options.kind, deployed)
        make_limits(client, settings(), deployed)
        make_automations(client, force=options.force)
        make_deployments(client, Path(FILE), deployed)


if __name__ == "__main__":
    main()
