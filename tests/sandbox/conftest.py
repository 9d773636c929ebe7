"""Fixtures for the tests of the sandbox: one sandbox per backend, with its own directory for temporary files."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from sandbox.backends import docker
from sandbox.client import Sandbox
from sandbox.errors import BackendUnavailable
from sandbox.languages import COMMON
from tests.command import ROOT
from tests.needs import need, need_tools


@pytest.fixture(scope="session", autouse=True)
def scratch() -> Iterator[Path]:
    """The directory in which workers keep programs. The users that programs run as may enter it."""
    with tempfile.TemporaryDirectory(prefix="tests-") as directory:
        Path(directory).chmod(0o711)
        before = os.environ.get("TMPDIR")
        os.environ["TMPDIR"] = directory
        yield Path(directory)
        if before is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before


BACKENDS = ("process", "bubblewrap", "docker")
ISOLATING = ("bubblewrap", "docker")
EIGHT = ("py", "cpp", "java", "php", "ts", "cs", "sh", "js")
"""The paper's languages, which the tests want on every backend; of the others docker's images have the tools."""


@pytest.fixture(scope="session", params=BACKENDS)
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A sandbox with two workers, for each backend."""
    need_backend(request.param)
    with Sandbox(request.param, workers=2) as made:
        yield made


@pytest.fixture(scope="session", params=ISOLATING)
def boxed(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A sandbox with two workers, for each isolating backend."""
    need_backend(request.param)
    with Sandbox(request.param) as made:
        yield made


def need_backend(name: str) -> None:
    """Skip the test (in CI: fail) if a backend is not available. Builds docker's image if it is missing."""
    if name == "bubblewrap":
        need_tools("bwrap")
    if name == "docker":
        need(daemon_answers(), "no Docker daemon answers")
        build_image()


def on_a_sample(module: str, *options: str) -> "subprocess.CompletedProcess[str]":
    """Run `python -m MODULE` with the options on MultiPL-E's problems in `EIGHT`. Skips the test (in CI: fails) without them, or
    without docker."""
    need_backend("docker")
    directory = Path(os.environ.get("MULTIPL_E_DIR", ""))
    there = all((directory / f"mbpp-{name}.jsonl").is_file() for name in EIGHT)
    need(there, "set MULTIPL_E_DIR to a folder with mbpp-LANG.jsonl files")
    return subprocess.run(
        [sys.executable, "-m", module, directory, *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )


@cache
def daemon_answers() -> bool:
    try:
        docker.connect()
    except BackendUnavailable:
        return False
    return True


@cache
def build_image(image: str = COMMON) -> None:
    try:
        docker.image_digest(docker.connect(), image)
    except BackendUnavailable:
        list(docker.build(image))
