"""Fetches modules for the node of an image from the npm registry, for which Debian has no package."""

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
    """Module `name` (NAME@VERSION) as npm packs it, a compressed tar file with the sha512 digest `integrity`. This machine's npm fetches it
    from its configured registry; nothing of the module is run. Raises `BackendUnavailable`."""
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
    """The files of a packed module: path below the module's folder, and content."""
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        for entry in archive:
            if content := archive.extractfile(entry):
                yield entry.name.partition("/")[2], content.read()
