"""One sandbox per backend, and a directory of its own for what it leaves behind."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.client import Sandbox
from tests.needs import need_tools


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


BACKENDS = ("process", "bubblewrap")


@pytest.fixture(scope="session", params=BACKENDS)
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A sandbox with two workers, for each backend."""
    if request.param == "bubblewrap":
        need_tools("bwrap")
    with Sandbox(request.param, workers=2) as made:
        yield made
