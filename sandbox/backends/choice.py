"""Libraries that a user adds to docker's images, by `python -m sandbox build --apt NAMES --pip NAMES --npm NAMES`.

Debian packages are installed while the image is built. This machine's pip and npm fetch the others, from the registries that they
are configured for, and the files are copied into the image. No code of theirs is run: pip takes wheels only, npm runs no scripts.
"""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

from sandbox.errors import BackendUnavailable, UsageError
from sandbox.installed import described

_SECONDS = 1200.0
_PYTHON = ("3.11", "cp311")  # of Debian 12, which the images are
_GLIBC = 36  # its minor version there: the newest manylinux wheels that run
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}  # Docker's name -> the kernel's
_NAMES = {
    # To apt-get, a hyphen at the end means "remove".
    "apt": r"[a-z0-9][a-z0-9+.-]*[a-z0-9+](?:=[0-9][0-9A-Za-z.+~:-]*)?",
    "pip": r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?(?:==[0-9A-Za-z][0-9A-Za-z.+!_-]*)?",
    "npm": r"(?:@[a-z0-9][a-z0-9._-]*/)?[a-z0-9][a-z0-9._-]*(?:@[0-9A-Za-z][0-9A-Za-z.+-]*)?",
}
_EXAMPLES = {"apt": "python3-scipy", "pip": "sortedcontainers==2.4.0", "npm": "mathjs@12.4.0"}


@dataclass(frozen=True)
class Choice:
    """Names of the libraries to add: of Debian, of the Python package index, of the npm registry, each with or without a version
    (`NAME=VERSION`, `NAME==VERSION`, `NAME@VERSION`). Raises `UsageError` for anything else, such as an option or a URL."""

    apt: Sequence[str] = ()
    pip: Sequence[str] = ()
    npm: Sequence[str] = ()

    def __post_init__(self) -> None:
        for kind, names in vars(self).items():
            for name in names:
                if not re.fullmatch(_NAMES[kind], name):
                    raise UsageError(f"--{kind}: expected a name such as {_EXAMPLES[kind]}, got {name!r}")

    def __bool__(self) -> bool:
        return bool(self.apt or self.pip or self.npm)

    def digest(self) -> str:
        """A digest of the names, in whatever order they were given."""
        names = {kind: sorted(set(names)) for kind, names in vars(self).items()}
        return hashlib.sha256(json.dumps(names).encode()).hexdigest()[:8]


def machine(architecture: str) -> str:
    """The kernel's name for the processor (`x86_64`) that Docker calls `architecture` (`amd64`)."""
    return _MACHINES.get(architecture, architecture)


def fetch(choice: Choice, platform: str, folder: Path) -> None:
    """Fill `folder` with what the Dockerfile copies into the image: `python/`, `node/`, and `versions.json`, which
    `sandbox.installed` reads. `platform`: the image's, as `machine` names it. Raises `BackendUnavailable`."""
    for name in ("python", "node"):
        folder.joinpath(name).mkdir()
    versions = {
        "apt": [name.partition("=")[0] for name in choice.apt],
        "pip": _python(choice.pip, platform, folder / "python") if choice.pip else [],
        "npm": _node(choice.npm, folder) if choice.npm else [],
    }
    folder.joinpath("versions.json").write_text(json.dumps(versions))


def _python(names: Sequence[str], platform: str, folder: Path) -> list[str]:
    """Unpack the wheels of the packages `names` and of those they need into `folder`. Returns their versions, as `described`."""
    version, abi = _PYTHON
    platforms = [
        f"manylinux2014_{platform}",
        *(f"manylinux_2_{minor}_{platform}" for minor in range(5, _GLIBC + 1)),
    ]
    options = ["--only-binary=:all:", "--no-compile", f"--target={folder}", f"--python-version={version}"]
    options += ["--implementation=cp", *(f"--abi={name}" for name in (abi, "abi3", "none"))]
    options += [f"--platform={name}" for name in platforms]
    _run((sys.executable, "-m", "pip", "install", *options, *names), folder)
    shutil.rmtree(folder / "bin", ignore_errors=True)
    found = {_normal(one.metadata["Name"]): one.version for one in distributions(path=[str(folder)])}
    return described(found, [_normal(name.partition("==")[0]) for name in names])


def _normal(name: str) -> str:
    """The name of a Python package as the index compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _node(names: Sequence[str], folder: Path) -> list[str]:
    """Unpack the modules `names` and those they need into `folder`/node. Returns their versions, as `described`."""
    npm = shutil.which("npm")
    if npm is None:
        raise BackendUnavailable("npm is not on PATH; install it, or leave out --npm")
    place = folder / "npm"
    place.mkdir()
    _run((npm, "install", "--ignore-scripts", "--omit=dev", f"--prefix={place}", "--", *names), place)
    packages = json.loads((place / "package-lock.json").read_bytes())["packages"]
    found = {
        path.removeprefix("node_modules/"): one.get("version", "") for path, one in packages.items() if path
    }
    folder.joinpath("node").rmdir()
    place.joinpath("node_modules").rename(folder / "node")
    shutil.rmtree(place)
    return described(found, [name[0] + name[1:].partition("@")[0] for name in names])


def _run(command: Sequence[str], folder: Path) -> None:
    """Run `command` in `folder`. Raises `BackendUnavailable` with what it said if it fails."""
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise BackendUnavailable(f"{error.cmd[0]} took longer than {_SECONDS:g} s") from error
    if done.returncode != 0:
        said = done.stderr.strip() or done.stdout.strip()
        raise BackendUnavailable(f"the libraries could not be fetched: {said[-500:]}")
