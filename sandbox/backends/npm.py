"""Fetches node modules that Debian does not package from the npm registry, for Docker's images."""

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

_SECONDS = 120.0


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
