"""What compilers and interpreters read faster than its source, made once for each version of them.

    header     the precompiled `bits/stdc++.h`: reading it takes g++ 2 s of CPU time, its precompiled form 0.2 s
    snapshot   node's heap as it is once it has started: making it takes node 40 ms of CPU time, reading it 10 ms

They are kept in `$XDG_CACHE_HOME/selftrain-sandbox` (without that variable `~/.cache`, for root `/var/cache`: programs then
run as another user, who has to be able to read it). Where one cannot be made, programs do without it.

    python -m sandbox.prepared header snapshot      makes them now; exit code 1 where that fails
"""

import fcntl
import hashlib
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from sandbox.languages import PATH

log = logging.getLogger(__name__)

UNPREPARED = {"header": "bits/stdc++.h", "snapshot": ""}
"""What stands in a command in place of each where it is not there; an empty argument is left out."""

_GXX = ("g++", "-std=c++17")  # as in the compile command: g++ ignores a header that other flags made
_ENV = {"PATH": PATH, "LC_ALL": "C.UTF-8"}
# What MultiPL-E's tests need; the rest of the library is made when it is asked for, as always.
_AT_START = "for (const name of ['assert', 'util']) require(name);\n"


def prepared(name: str) -> tuple[str, Path | None]:
    """What stands in a command for "header" or "snapshot", and the directory that the command then has to be able to read."""
    directory = _directory(name)
    if directory is None:
        return UNPREPARED[name], None
    return {"header": f"{directory}/stdc++.h", "snapshot": f"--snapshot-blob={directory}/node.blob"}[
        name
    ], directory


@cache
def _directory(name: str) -> Path | None:
    """Where it is, made on first use; None where that fails."""
    version, make = {"header": (_GXX, _make_header), "snapshot": (("node",), _make_snapshot)}[name]
    try:
        said = subprocess.run(
            (*version, "--version"), env=_ENV, capture_output=True, check=True, timeout=60
        ).stdout
        digest = hashlib.sha256(said + repr((version, _AT_START)).encode()).hexdigest()[:16]
        directory = _cache() / f"{name}-{digest}"
        _build(directory, make)
        if os.geteuid() == 0 and not _readable_by_all(directory):
            raise PermissionError(f"{directory} is not readable by all users")
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("no prepared %s, programs will be slower: %s", name, error)
        return None
    return directory


def _make_header(directory: Path) -> None:
    header = directory / "stdc++.h"
    header.write_text(
        f"#include <{UNPREPARED['header']}>\n"
    )  # what g++ reads if it does not like the precompiled form
    _run((*_GXX, "-x", "c++-header", str(header), "-o", f"{header}.gch"), directory)


def _make_snapshot(directory: Path) -> None:
    script = directory / "start.js"
    script.write_text(_AT_START)
    blob = f"{directory}/node.blob"
    _run(("node", f"--snapshot-blob={blob}", "--build-snapshot", str(script)), directory)
    script.write_text("")
    _run(("node", f"--snapshot-blob={blob}", str(script)), directory)  # it can be used


def _run(argv: tuple[str, ...], directory: Path) -> None:
    env = _ENV | {"TMPDIR": str(directory)}
    subprocess.run(argv, env=env, check=True, capture_output=True, timeout=300)


def _cache() -> Path:
    default = Path("/var/cache") if os.geteuid() == 0 else Path.home() / ".cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or default) / "selftrain-sandbox"


def _build(directory: Path, make: Callable[[Path], None]) -> None:
    """Make `directory` unless it is there."""
    if directory.exists():
        return
    directory.parent.mkdir(parents=True, exist_ok=True)
    with open(directory.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if directory.exists():
            return
        with tempfile.TemporaryDirectory(dir=directory.parent) as scratch:
            built = Path(scratch) / "built"
            built.mkdir(mode=0o755)
            make(built)
            for path in built.iterdir():
                path.chmod(0o644)
            built.chmod(0o755)
            built.rename(directory)


def _readable_by_all(directory: Path) -> bool:
    return all(path.stat().st_mode & 0o005 == 0o005 for path in (directory, *directory.parents))


if __name__ == "__main__":
    sys.exit(any(prepared(name)[1] is None for name in sys.argv[1:]))
