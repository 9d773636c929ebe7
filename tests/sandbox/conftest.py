"""One sandbox per backend, and a directory of its own for what it leaves behind."""

import os
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from sandbox.backends import docker
from sandbox.client import Sandbox
from sandbox.errors import BackendUnavailable
from sandbox.languages import COMMON
from tests.needs import need, need_tools


@pytest.fixture(scope="session", autouse=True)
def scratch() -> Iterator[Path]:
    """Where the workers of these tests keep programs: open to the users that these run as."""
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
    """A sandbox for each backend that isolates."""
    need_backend(request.param)
    with Sandbox(request.param) as made:
        yield made


def need_backend(name: str) -> None:
    """Skip the running test, or fail in CI, where a backend cannot be had; build docker's image where it is not there."""
    if name == "bubblewrap":
        need_tools("bwrap")
    if name == "docker":
        need(daemon_answers(), "no Docker daemon answers")
        build_image()


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
