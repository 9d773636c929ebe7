"""Creates the work pool, the automations and the deployments of prefect.yaml on the server of PREFECT_API_URL.

python infra/deploy.py [process | docker | kubernetes]

The pool `selftrain` uses Prefect's job template for its type, with the default values of infra/pools.yaml; for Kubernetes the
Job manifest is infra/kubernetes/job.yaml. The automations are those of automation.py. This command is idempotent.
"""

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from automation import make_automations
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectNotFound

HERE = Path(__file__).parent
NAME = "selftrain"
TYPES = ("process", "docker", "kubernetes")


def job_template(kind: str, default: dict[str, Any]) -> dict[str, Any]:
    """`default`, Prefect's job template for the pool type `kind`, with the default values of pools.yaml."""
    template = copy.deepcopy(default)
    properties = template["variables"]["properties"]
    if kind == "kubernetes":
        template["job_configuration"]["job_manifest"] = yaml.safe_load(
            (HERE / "kubernetes" / "job.yaml").read_text()
        )
        properties["gpus"] = {"title": "GPUs", "type": "integer", "description": "GPUs of the run's pod."}
    for name, value in yaml.safe_load((HERE / "pools.yaml").read_text())[kind].items():
        properties[name]["default"] = value
    return template


def make_pool(client: SyncPrefectClient, kind: str) -> None:
    """Create the pool, or update it. Exits with a message if the pool exists with another type."""
    collections = client.read_worker_metadata()
    default = next(workers[kind] for workers in collections.values() if kind in workers)
    template = job_template(kind, default["default_base_job_configuration"])
    try:
        pool = client.read_work_pool(NAME)
    except ObjectNotFound:
        client.create_work_pool(WorkPoolCreate(name=NAME, type=kind, base_job_template=template))
        return
    if pool.type != kind:
        sys.exit(
            f"the work pool {NAME} is of type {pool.type}, not {kind}: run `make deploy POOL={pool.type}`, or delete the pool first "
            f"with `prefect work-pool delete {NAME}`"
        )
    client.update_work_pool(NAME, WorkPoolUpdate(base_job_template=template))


def main() -> int:
    """Create everything; returns the exit code of `prefect deploy`."""
    kind = sys.argv[1] if len(sys.argv) > 1 else "process"
    if kind not in TYPES:
        sys.exit(f"unknown type of work pool {kind!r}; expected one of: {', '.join(TYPES)}")
    os.chdir(HERE.parent)
    with get_client(sync_client=True) as client:
        make_pool(client, kind)
        make_automations(client)
    return subprocess.run([sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]).returncode


if __name__ == "__main__":
    sys.exit(main())
