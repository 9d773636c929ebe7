"""Tests of infra/sbom.py, the software bill of materials."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from infra.sbom import debian_component, document, python_component
from sandbox.backends import docker
from tests.command import ROOT


def test_packages_are_named_as_other_tools_name_them():
    python = python_component(
        {"metadata": {"name": "Types_PyYAML", "version": "6.0+cpu", "license_expression": "MIT"}}
    )
    assert python["purl"] == "pkg:pypi/types-pyyaml@6.0%2Bcpu"
    assert python["licenses"] == [{"expression": "MIT"}]
    debian = debian_component("libstdc++6:amd64\t12.2.0-14+deb12u1\tamd64\tgcc-12")
    assert debian["purl"] == "pkg:deb/debian/libstdc%2B%2B6@12.2.0-14%2Bdeb12u1?arch=amd64&distro=bookworm"
    bill = document({"type": "application", "name": "x"}, [python, debian, python])
    assert [component["name"] for component in bill["components"]] == ["libstdc++6", "Types_PyYAML"]


@pytest.mark.slow
def test_the_bill_of_an_image_has_its_packages(tmp_path: Path):
    name = docker.tag()
    done = subprocess.run(
        [sys.executable, ROOT / "infra" / "sbom.py", name], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "build" / "sbom").iterdir()
    found = {
        component["name"]: component["version"] for component in json.loads(path.read_text())["components"]
    }
    assert found["python3"].startswith("3.11.")


def test_an_image_that_is_not_there_is_told_in_a_line(tmp_path: Path):
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\necho 'Error: No such image: nowhere' >&2; exit 1\n")
    docker.chmod(0o755)
    command = [sys.executable, ROOT / "infra" / "sbom.py", "nowhere"]
    done = subprocess.run(command, cwd=tmp_path, env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 1
    assert "No such image: nowhere" in done.stderr
    assert "Traceback" not in done.stderr
