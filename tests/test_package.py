"""Tests of the package: the wheel works without the repository, and prefect.yaml names only flows and configs that exist."""

import inspect
import os
import subprocess
import sys
import zipfile
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from selftrain.configfile import load_config
from tests.command import ROOT, PrefectServer


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's content, in a folder of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(folder),
        str(ROOT),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=600)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def python(installed: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python that finds the installed files and, of the repository, nothing."""
    code = (
        "import runpy, sys\n"
        f"sys.path[:] = [{str(installed)!r}] + [p for p in sys.path if p not in ('', {str(ROOT)!r})]\n"
        "sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in repr(f).lower()]\n"
        f"sys.argv = {list(arguments)!r}\n"
        "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)\n"
    )
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, timeout=600)


def test_the_wheel_plans_the_demo_outside_the_tree(installed: Path, tmp_path: Path) -> None:
    assert {p.name for p in installed.iterdir() if "." not in p.name} == {
        "flows",
        "tasks",
        "selftrain",
        "sandbox",
    }
    assert (installed / "sandbox" / "images" / "Dockerfile").is_file()
    sharded = ("--set", "runtime.deepspeed=zero3")  # the name of a file that is in the wheel, too
    done = python(installed, tmp_path, "flows.cli", "run", "demo", "--dry-run", *sharded)
    assert done.returncode == 0, done.stderr
    assert "0 of 20 stages are cached" in done.stdout
    where = python(installed, tmp_path, "sandbox", "languages", "--backend", "process")
    assert where.returncode == 0, where.stderr
    assert "Python 3" in where.stdout


def test_every_deployment_names_a_flow_and_a_config_that_are_there() -> None:
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    assert [deployment["name"] for deployment in deployments] == [
        "prod",
        "evaluate",
        "demo",
    ]
    for deployment in deployments:
        module, _, name = deployment["entrypoint"].rpartition(".")
        flow = getattr(import_module(module), name)
        assert flow.name == module.rpartition(".")[2].replace("_", "-")
        assert set(deployment["parameters"]) <= set(inspect.signature(flow.fn).parameters)
        load_config(deployment["parameters"]["config"], {})


def test_deploy_registers_pool_deployments_and_schedule(server: PrefectServer) -> None:
    environment = os.environ | {"PREFECT_API_URL": server.url, "PYTHONPATH": str(ROOT)}
    for _ in range(2):  # again is no mistake
        done = subprocess.run(
            [sys.executable, str(ROOT / "infra" / "deploy.py")],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    names = [automation["name"] for automation in server.post("automations/filter")]
    assert names.count("selftrain: a silent run goes on") == 1
    found = {
        row["name"]: row
        for row in server.post("deployments/filter")
        if row["work_pool_name"] == "selftrain"  # other tests' deployments on this server have no pool
    }
    assert set(found) == {"prod", "evaluate", "demo"}
    (schedule,) = found["prod"]["schedules"]
    assert schedule["schedule"]["cron"] == "0 2 * * *"
    assert found["prod"]["work_pool_name"] == "selftrain"
