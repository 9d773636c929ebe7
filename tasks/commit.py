"""Names the git commit of this code, for manifests, run.json and reports: of a checkout, or of the one that an image was built from."""

import os
import re
import subprocess
from pathlib import Path

VARIABLE = "SELFTRAIN_COMMIT"
"""The environment variable in which an image, which has no checkout, carries its commit (infra/Dockerfile)."""

_COMMIT = re.compile(r"[0-9a-f]{7,64}(-dirty)?")


def git_commit(file: Path = Path(__file__)) -> str | None:
    """The commit of the checkout that `file` is tracked in, with `-dirty` where tracked files differ from it; else the value of
    SELFTRAIN_COMMIT; None if neither is known.

    An installed package may lie inside the checkout of another project (`.venv`), whose commit says nothing about this code.
    """
    try:
        _git(file.parent, "ls-files", "--error-unmatch", file.name)
        said = _git(file.parent, "describe", "--always", "--dirty", "--abbrev=64", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        said = os.environ.get(VARIABLE, "")
    return said if _COMMIT.fullmatch(said) else None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", *arguments]
    return subprocess.check_output(command, cwd=folder, stderr=subprocess.DEVNULL, text=True).strip()
