"""Tests of the site of `make docs`: it builds, has copies of linked files outside docs/, and a dead link fails the build."""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.command import ROOT
from tests.needs import need


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """What the site is made of, in a folder of its own."""
    need(find_spec("material") is not None, "mkdocs-material is not installed")
    for name in ("docs", "infra", "sandbox"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("ARCHITECTURE.md", "mkdocs.yml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    """`mkdocs build --strict`, finished, whatever its exit code."""
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict"],
        cwd=folder,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )


def test_the_site_has_what_pages_link_to(copy: Path):
    done = build(copy)
    assert done.returncode == 0, done.stderr
    site = copy / "build" / "site"
    assert 'href="../repository/infra/compose.yaml"' in (site / "deploy" / "index.html").read_text()
    copied = site / "repository" / "infra" / "compose.yaml"
    assert copied.read_bytes() == (ROOT / "infra" / "compose.yaml").read_bytes()
    assert 'href="../../method/"' in (site / "repository" / "ARCHITECTURE" / "index.html").read_text()


@pytest.mark.parametrize(
    "link", ["../infra/nothing.yaml", "nothing.md", "tutorial.md#nothing", "../nothing/"]
)
def test_a_dead_link_fails_the_build(copy: Path, link: str):
    with (copy / "docs" / "failures.md").open("a") as page:
        page.write(f"\n[dead]({link})\n")
    done = build(copy)
    assert done.returncode != 0
    assert link in done.stderr
