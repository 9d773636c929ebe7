"""The versions of the libraries that a language's programs find here; part of `Sandbox.identity`."""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from sandbox.languages import NODE_MODULES, PATH, Language

CHOICE = Path("/opt/versions.json")
"""In an image, what `sandbox.backends.choice` added to it; missing elsewhere."""


def installed_libraries(row: Language) -> list[str]:
    """`NAME VERSION` for each library of a language's row that is installed, and for each that was added to the image."""
    try:
        choice = json.loads(CHOICE.read_bytes())
    except FileNotFoundError:
        choice = {}
    return listed_libraries(row) + chosen_libraries(row, choice)


def listed_libraries(row: Language) -> list[str]:
    """`NAME VERSION` for each library that the table of languages names for the row and that is installed."""
    packages = _packages(row.libraries) if row.libraries else {}
    found = [f"{name} {version}" for name, version in sorted(packages.items())]
    if "nodejs" in row.packages:
        for module in NODE_MODULES:
            package = Path("/usr/share/nodejs", module.rpartition("@")[0], "package.json")
            with suppress(OSError, ValueError, KeyError):
                found.append(f"{module.rpartition('@')[0]} {json.loads(package.read_bytes())['version']}")
    return found


def chosen_libraries(row: Language, choice: Mapping[str, Any]) -> list[str]:
    """As `described`, for the added libraries that programs of the row can reach. `choice`: the content of the file `CHOICE`.

    A Debian package may serve any language, so it is listed for all of them.
    """
    found = described(_packages(), choice["apt"]) if choice.get("apt") else []
    if row.name == "py":
        found += choice.get("pip", [])
    if "nodejs" in row.packages:
        found += choice.get("npm", [])
    return found


def described(versions: Mapping[str, str], asked: Collection[str]) -> list[str]:
    """`NAME VERSION` for each name in `asked`, and one digest of all other `versions`, on which the libraries depend."""
    rest = sorted((name, version) for name, version in versions.items() if name not in asked)
    found = [f"{name} {versions[name]}" for name in sorted(asked) if name in versions]
    digest = hashlib.sha256(json.dumps(rest).encode()).hexdigest()[:8]
    return found + ([f"with {len(rest)} others {digest}"] if rest else [])


def _packages(names: Collection[str] = ()) -> dict[str, str]:
    """The versions of those of the Debian packages `names` that are installed; without names, of all installed packages."""
    if not shutil.which("dpkg-query", path=PATH):
        return {}
    asked = ("dpkg-query", "--show", "--showformat=${db:Status-Status} ${Package} ${Version}\n", *names)
    # dpkg-query fails if a package is missing, but still lists the others.
    said = subprocess.run(asked, capture_output=True, text=True, env={"PATH": PATH}, timeout=60, check=False)
    lines = [line.split() for line in said.stdout.splitlines()]
    return {name: version for state, name, version in lines if state == "installed"}
