"""Tests of the Kubernetes manifests as one: each pod is confined, gets its own secrets, and finds what it needs for a first run."""

import json
import os
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import uuid
from pathlib import Path
from typing import Any

import pytest
import yaml

from selftrain.store.files import Files
from tests.command import ROOT
from tests.servers import S3Server

FOLDER = ROOT / "infra" / "kubernetes"
KUSTOMIZATION = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
MANIFESTS = [
    each for name in KUSTOMIZATION["resources"] for each in yaml.safe_load_all((FOLDER / name).read_text())
]
PODS = {
    each["metadata"]["name"]: each["spec"]["template"]["spec"]
    for each in MANIFESTS
    if each["kind"] in ("Deployment", "StatefulSet")
} | {"run": yaml.safe_load((FOLDER / "job.yaml").read_text())["spec"]["template"]["spec"]}
NAMESPACES = {
    each["metadata"]["name"]: each["metadata"]["namespace"]
    for each in MANIFESTS
    if each["kind"] in ("Deployment", "StatefulSet")
}
NAMESPACES["run"] = "selftrain"
SECRETS = {
    "postgres": {"database"},
    "server": {"database"},
    "store": {"store"},
    "worker": {"store", "run"},
    "run": {"store", "run", "sandbox-client"},
    "judge": {"judge", "sandbox-client"},
    "rerank": {"rerank", "store"},
    "sandbox": {"sandbox-server", "sandbox-client"},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that secrets.sh makes."""
    folder = tmp_path_factory.mktemp("kubernetes")
    shutil.copy(FOLDER / "secrets.sh", folder)
    subprocess.run([folder / "secrets.sh"], check=True, capture_output=True)
    return folder / "secrets"


def referenced(pod: dict[str, Any]) -> set[str]:
    """The names of the secrets that a pod gets."""
    text = json.dumps(pod)
    return set(re.findall(r'"secret(?:Ref|KeyRef)": \{"name": "([\w-]+)"', text)) | set(
        re.findall(r'"secretName": "([\w-]+)"', text)
    )


@pytest.mark.parametrize("name", PODS)
def test_a_pod_gets_its_own_secrets_and_no_others(name: str):
    assert referenced(PODS[name]) == SECRETS[name]
    there = {row["name"] for row in KUSTOMIZATION["secretGenerator"] if row["namespace"] == NAMESPACES[name]}
    assert SECRETS[name] <= there


@pytest.mark.parametrize("name", sorted(PODS.keys() - {"sandbox"}))
def test_a_pod_is_confined_as_its_namespace_demands(name: str):
    """Kubernetes' pod security standard `restricted`, which the namespace enforces."""
    pod = PODS[name]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in [*pod.get("initContainers", []), *pod["containers"]]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"cpu", "memory"} <= set(container["resources"]["requests"]), "or the quota refuses it"
        assert "memory" in container["resources"]["limits"]
    assert pod["enableServiceLinks"] is False
    assert pod.get("automountServiceAccountToken", True) is (name == "worker"), (
        "only the worker asks the cluster's API"
    )
    assert all(
        {"emptyDir", "ephemeral", "persistentVolumeClaim", "secret"} & set(v) for v in pod.get("volumes", [])
    )


def test_only_the_daemon_of_the_sandbox_is_privileged_in_a_namespace_of_its_own():
    privileged = [
        (name, c["name"])
        for name, pod in PODS.items()
        for c in pod["containers"]
        if c.get("securityContext", {}).get("privileged")
    ]
    assert privileged == [("sandbox", "docker")]
    assert [name for name, where in NAMESPACES.items() if where != "selftrain"] == ["sandbox"]
    levels = {
        each["metadata"]["name"]: set(each["metadata"]["labels"].values())
        for each in MANIFESTS
        if each["kind"] == "Namespace"
    }
    assert levels == {"selftrain": {"restricted"}, "selftrain-sandbox": {"privileged"}}
    assert {each["metadata"].get("namespace") for each in MANIFESTS if each["kind"] != "Namespace"} == set(
        levels
    )


def test_the_worker_watches_its_namespace_only_and_starts_runs_in_its_own_image():
    worker = PODS["worker"]
    (container,), (first,) = worker["containers"], worker["initContainers"]
    environment = {each["name"]: each["value"] for each in container["env"]}
    assert environment["PREFECT_INTEGRATIONS_KUBERNETES_OBSERVER_NAMESPACES"] == NAMESPACES["worker"]
    assert "infra/deploy.py kubernetes" in first["args"][0]
    assert any(each["name"] == "SELFTRAIN_IMAGE" for each in first["env"])
    (row,) = KUSTOMIZATION["replacements"]
    assert row["targets"][0]["fieldPaths"] == [
        "spec.template.spec.initContainers.[name=deploy].env.[name=SELFTRAIN_IMAGE].value"
    ]


def test_who_waits_for_the_sandbox_as_the_page_says_waits_for_its_image():
    """`kubectl rollout status` ends at the deployment's deadline, whatever its --timeout; the default is ten minutes."""
    (command,) = re.findall(
        r"rollout status deployment/sandbox --timeout=(\d+)m", (ROOT / "docs" / "kubernetes.md").read_text()
    )
    (sandbox,) = (
        each for each in MANIFESTS if each["kind"] == "Deployment" and each["metadata"]["name"] == "sandbox"
    )
    assert sandbox["spec"].get("progressDeadlineSeconds", 600) >= 60 * int(command)


def test_runs_and_services_have_one_store():
    first, served = PODS["worker"]["initContainers"][0], PODS["rerank"]["containers"][0]
    stores = [
        each["value"] for pod in (first, served) for each in pod["env"] if each["name"] == "SELFTRAIN_STORE"
    ]
    pools = yaml.safe_load((ROOT / "infra" / "pools.yaml").read_text())
    assert stores == 2 * [pools["kubernetes"]["env"]["SELFTRAIN_STORE"]]


COMPOSE = yaml.safe_load((ROOT / "infra" / "compose.yaml").read_text())


@pytest.mark.parametrize(
    "script",
    [PODS["worker"]["initContainers"][0]["args"][0], COMPOSE["services"]["deploy"]["command"][2]],
    ids=("kubernetes", "compose"),
)
def test_the_bucket_that_is_made_is_that_of_the_store(s3: S3Server, script: str):
    (line,) = (line for line in script.splitlines() if "s3fs" in line)
    bucket = f"b{uuid.uuid4().hex}"
    environment = os.environ | s3.environment | {"SELFTRAIN_STORE": f"s3://{bucket}/deep/store"}
    for _ in range(2):  # it may be there
        subprocess.run([sys.executable, *shlex.split(line)[1:]], env=environment, check=True)
    assert Files(f"s3://{bucket}", s3.options).fs.exists(bucket)
    assert not Files(f"s3://{bucket}", s3.options).fs.exists("selftrain")


def test_the_secrets_are_made_once_and_are_what_the_kustomization_takes(made: Path):
    wanted = {name for row in KUSTOMIZATION["secretGenerator"] for name in row.get("envs", [])}
    wanted |= {
        name.partition("=")[2] for row in KUSTOMIZATION["secretGenerator"] for name in row.get("files", [])
    }
    assert {f"secrets/{path.name}" for path in made.iterdir()} >= wanted
    assert {path.stat().st_mode & 0o077 for path in made.iterdir()} == {0}, "for nobody else"
    before = {path.name: path.read_bytes() for path in made.iterdir()}
    (made / "run.env").write_text("SELFTRAIN_WEBHOOK_URL=https://example.org\n")
    said = subprocess.run([made.parent / "secrets.sh"], check=True, capture_output=True, text=True).stdout
    assert ": made" not in said
    after = {path.name: path.read_bytes() for path in made.iterdir()}
    assert {name for name in after if after[name] != before.get(name)} == {"run.env"}
    database = dict(line.split("=", 1) for line in (made / "database.env").read_text().splitlines())
    assert f":{database['POSTGRES_PASSWORD']}@" in database["PREFECT_SERVER_DATABASE_CONNECTION_URL"]
    keys = {key for pod in PODS.values() for key in re.findall(r'"key": "([A-Z_]+)"', json.dumps(pod))}
    assert keys <= {
        line.split("=")[0] for path in made.glob("*.env") for line in path.read_text().splitlines()
    }


@pytest.mark.parametrize(
    ("host", "certified", "ok"),
    [
        ("sandbox.selftrain-sandbox", True, True),
        ("127.0.0.1", True, True),
        ("sandbox.elsewhere", True, False),
        ("sandbox.selftrain-sandbox", False, False),
    ],
)
def test_the_sandboxs_daemon_and_its_clients_know_each_other(
    made: Path, host: str, certified: bool, ok: bool
):
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=made / "ca.pem")
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_cert_chain(made / "server-cert.pem", made / "server-key.pem")
    client = ssl.create_default_context(cafile=made / "ca.pem")
    if certified:
        client.load_cert_chain(made / "client-cert.pem", made / "client-key.pem")
    here, there = socket.socketpair()

    def answer() -> None:
        try:
            with server.wrap_socket(there, server_side=True) as connection:
                connection.sendall(connection.recv(4))
        except OSError:
            there.close()

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        with client.wrap_socket(here, server_hostname=host) as connection:
            connection.sendall(b"ping")
            assert (connection.recv(4) == b"ping") is ok
    except OSError:
        assert not ok
    finally:
        here.close()
        thread.join(10)
