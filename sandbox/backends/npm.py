"""Fetches node's own build, and modules that Debian does not package, from the npm registry, for Docker's images."""

import base64
import hashlib
import io
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sandbox.errors import BackendUnavailable
from sandbox.languages import NODE_BUILDS, NODE_MODULES

NODE = "node/bin/node"
"""The path of node in an image's build context; the only file there that is executable."""

_SECONDS = 300.0
# Of node's build: the path in the package -> that in the build context.
_KEPT = {"bin/node": NODE, "LICENSE": "node/share/doc/node/LICENSE"}


def of_node(platform: str) -> tuple[list[tuple[str, bytes]], list[str]]:
    """Node's build for `platform` (as `uname -m` says) and the modules, as (path in the build context, content), and one message
    for each that could not be fetched."""
    found: list[tuple[str, bytes]] = []
    lacking = []
    if platform in NODE_BUILDS:
        try:
            packed = module(*NODE_BUILDS[platform])
        except BackendUnavailable as error:
            lacking.append(f"the image has Debian's node, which is older and starts more slowly: {error}")
        else:
            found += [(_KEPT[name], content) for name, content in files(packed) if name in _KEPT]
    for name, integrity in NODE_MODULES.items():
        try:
            packed = module(name, integrity)
        except BackendUnavailable as error:
            lacking.append(f"the image is without {name} for node: {error}")
        else:
            folder = f"modules/{name.rpartition('@')[0]}"
            found += [(f"{folder}/{path}", content) for path, content in files(packed)]
    return found, lacking


def module(name: str, integrity: str) -> bytes:
    """Module `name` (NAME@VERSION) as a compressed tar file. This machine's npm fetches it from the registry that it is
    configured for; no code of the module is run. Raises `BackendUnavailable`, also if the file's sha512 digest is not
    `integrity`."""
    npm = shutil.which("npm")
    if npm is None:
        raise BackendUnavailable("npm is not on PATH")
    with tempfile.TemporaryDirectory() as directory:
        try:
            done = subprocess.run(
                (npm, "pack", "--ignore-scripts", name), cwd=directory, capture_output=True, text=True, timeout=_SECONDS, check=False
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise BackendUnavailable(f"npm took longer than {_SECONDS:g} s") from error
        packed = list(Path(directory).glob("*.tgz"))
        if done.returncode != 0 or len(packed) != 1:
            raise BackendUnavailable(f"npm failed: {done.stderr.strip()[-300:]}")
        content = packed[0].read_bytes()
    found = f"sha512-{base64.b64encode(hashlib.sha512(content).digest()).decode()}"
    if found != integrity:
        raise BackendUnavailable(f"npm gave another file: expected {integrity}, got {found}")
    return content


def files(packed: bytes) -> Iterator[tuple[str, bytes]]:
    """(path below the module's folder, content) of each file of a packed module."""
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        for entry in archive:
            if content := archive.extractfile(entry):
                yield entry.name.partition("/")[2], content.read()
