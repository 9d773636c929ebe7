"""Tests of the commit that manifests, run.json and reports name."""

import subprocess
from pathlib import Path

import pytest

from tasks.commit import VARIABLE, git_commit

BUILT_FROM = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit, which has `code.py`."""
    for name in ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"):
        monkeypatch.setenv(name, "nobody")
    monkeypatch.delenv(VARIABLE, raising=False)
    (tmp_path / "code.py").write_text("1")
    for command in (["init", "-q"], ["add", "code.py"], ["commit", "-qm", "first"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


def test_a_checkout_names_its_commit_and_says_when_its_files_differ(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
):
    head = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=checkout, text=True).strip()
    monkeypatch.setenv(VARIABLE, BUILT_FROM)
    assert git_commit(checkout / "code.py") == head, "not what the environment says of another"
    (checkout / "code.py").write_text("2")
    assert git_commit(checkout / "code.py") == f"{head}-dirty"


def test_an_image_names_the_commit_that_it_was_built_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setenv(VARIABLE, BUILT_FROM)
    assert git_commit(tmp_path / "code.py") == BUILT_FROM
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_commit(tmp_path / "code.py") == BUILT_FROM, "an image has no git"


@pytest.mark.parametrize("value", ["", "main", "<b>0123456</b>", "012345", BUILT_FROM.upper()])
def test_what_is_no_commit_is_not_taken_for_one(value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setenv(VARIABLE, value)
    assert git_commit(tmp_path / "code.py") is None


def test_a_package_inside_another_projects_checkout_does_not_take_that_projects_commit(checkout: Path):
    installed = checkout / ".venv" / "commit.py"
    installed.parent.mkdir()
    installed.write_text("")
    assert git_commit(installed) is None
