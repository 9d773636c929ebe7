"""The precompiled `bits/stdc++.h`: reading it takes g++ 2 s of CPU time, its precompiled form 0.4 s.

It is compiled once for each version of g++ and kept in `$XDG_CACHE_HOME/selftrain-sandbox` (without that
variable
`~/.cache`, for root `/var/cache`: programs then run as another user, who has to be able to read it).
"""

import fcntl
import hashlib
import logging
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from sandbox.languages import PATH

log = logging.getLogger(__name__)

PLAIN = "bits/stdc++.h"
_FLAGS = ("-std=c++17",)  # those of the compile command: g++ ignores a header that other flags made
_ENV = {"PATH": PATH, "LC_ALL": "C.UTF-8"}


@cache
def precompiled_header() -> Path | None:
    """The directory of `stdc++.h` and its precompiled form, made on first use; None where that fails."""
    try:
        version = subprocess.run(("g++", "--version"), env=_ENV, capture_output=True, check=True, timeout=60)
        digest = hashlib.sha256(version.stdout + repr(_FLAGS).encode()).hexdigest()[:16]
        directory = _cache() / f"header-{digest}"
        _build(directory)
        if os.geteuid() == 0 and not _readable_by_all(directory):
            raise PermissionError(f"{directory} is not readable by all users")
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("no precompiled C++ header, compiling will be slower: %s", error)
        return None
    return directory


def _cache() -> Path:
    default = Path("/var/cache") if os.geteuid() == 0 else Path.home() / ".cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or default) / "selftrain-sandbox"


def _build(directory: Path) -> None:
    """Make `directory`, with the header and its precompiled form, unless it is there."""
    if directory.exists():
        return
    directory.parent.mkdir(parents=True, exist_ok=True)
    with open(directory.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if directory.exists():
            return
        with tempfile.TemporaryDirectory(dir=directory.parent) as made:
            built = Path(made) / "built"
            built.mkdir(mode=0o755)
            header = built / "stdc++.h"
            header.write_text(
                f"#include <{PLAIN}>\n"
            )  # what g++ reads if it does not like the precompiled form
            argv = ("g++", *_FLAGS, "-x", "c++-header", str(header), "-o", f"{header}.gch")
            subprocess.run(argv, env=_ENV | {"TMPDIR": made}, check=True, capture_output=True, timeout=300)
            for path in built.iterdir():
                path.chmod(0o644)
            built.chmod(0o755)
            built.rename(directory)


def _readable_by_all(directory: Path) -> bool:
    return all(path.stat().st_mode & 0o005 == 0o005 for path in (directory, *directory.parents))


if __name__ == "__main__":
    sys.exit(precompiled_header() is None)
