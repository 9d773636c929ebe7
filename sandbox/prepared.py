"""Builds files that speed up compiling or starting programs, once for each version of the tools.

    preamble   the precompiled C++ headers of `sandbox.preamble`, each under its name there. g++ takes 1.8 s of CPU time to read
               `bits/stdc++.h`, and 0.3 s to read its precompiled form
    snapshot   node's heap after start-up, where node was built without one, as Debian's is. Loading a snapshot takes half as long
               as building the heap. V8 accepts a snapshot only under the flags with which it was built, so there are two, both
               for the default memory limit: `snapshot`, and `snapshot-contest` for programs with cases
    fork       the compiled `servers/fork.c`, which runs Python programs in the warm interpreter, and with bubblewrap
    zygote     the compiled `servers/zygote.c`, the library for `sandbox.zygote`

The files are in `$XDG_CACHE_HOME/selftrain-sandbox`. The default for XDG_CACHE_HOME is `~/.cache`; for root it is `/var/cache`,
because programs then run as other users, who have to read the files. If a file cannot be built, programs run without it.

    python -m sandbox.prepared preamble snapshot snapshot-contest fork zygote      builds the files now, those that are of
                                                                                   use here; exit code 1 if one fails
"""

import fcntl
import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path

from sandbox.errors import SandboxError
from sandbox.languages import CONTEST_NODE_OPTION, CONTEST_OPTIONS, GXX_OPTIONS, PATH, heap_mib, stack_mib
from sandbox.preamble import CONTEST, PREAMBLES
from sandbox.verdicts import Limits

log = logging.getLogger(__name__)

IN_COMMANDS = ("preamble", "snapshot")
"""Names that the table of languages uses in its commands. If the file does not exist, the argument is left out of the command."""

_SNAPSHOTS = ("snapshot", f"snapshot{CONTEST}")
# By name, the argument that a command gets for a prepared file; `{}` is the file's directory.
_STANDS = {
    **dict.fromkeys(PREAMBLES, "-include{}/preamble.h"),
    **dict.fromkeys(_SNAPSHOTS, "--snapshot-blob={}/node.blob"),
    "fork": "{}/fork.so",
    "zygote": "{}/zygote.so",
}
_FILES = ("preamble.h", "node.blob", "fork.so")
"""Files that a command names on its command line; without such a file the command would fail."""
_SERVERS = Path(__file__).parent / "servers"
_GCC = ("gcc", "-O2", "-shared", "-fPIC")
_ENV = {"PATH": PATH, "LC_ALL": "C.UTF-8"}
# Modules that MultiPL-E's tests need. Programs load other modules when they require them, as usual.
_AT_START = "for (const name of ['assert', 'util']) require(name);\n"


def prepared(name: str, limits: Limits) -> tuple[str, Path | None]:
    """The command-line argument for the prepared file `name`, and the directory that the command has to be able to read.

    Empty and None if there is no such file, or if it does not fit the program's `limits`.
    """
    unusual = name in _SNAPSHOTS and heap_mib(limits) != heap_mib(Limits())
    directory = None if unusual or not name else _directory(name)
    if directory is None:
        return "", None
    return _STANDS[name].format(directory), directory


def inputs() -> list[tuple[tuple[str, ...], str]]:
    """For every prepared file, the command of the tool that builds it and the text that it is built from."""
    return [recipe()[0] for recipe in _RECIPES.values()]


def check_there(directories: Iterable[Path]) -> None:
    """Raise `SandboxError` if prepared files in `directories`, which a command needed, are gone. The next use rebuilds them."""
    for directory in directories:
        if not any((directory / file).exists() for file in _FILES):
            shutil.rmtree(directory, ignore_errors=True)
            _directory.cache_clear()
            raise SandboxError(f"the prepared files in {directory} were removed while programs were judged")


@cache
def _directory(name: str) -> Path | None:
    """The directory of the prepared file `name`, built on first use; None if its tool is missing or the build fails."""
    try:
        made_with, make = _RECIPES[name]()
        if shutil.which(made_with[0][0], path=PATH) is None or _useless(name):
            return None
        said = subprocess.run(
            (*made_with[0], "--version"), env=_ENV, capture_output=True, check=True, timeout=60
        ).stdout
        digest = hashlib.sha256(said + repr(made_with).encode()).hexdigest()[:16]
        directory = _cache() / f"{name}-{digest}"
        _build(directory, make)
        if name in _SNAPSHOTS:
            # An image may be used on a machine whose V8 rejects the snapshot.
            _run((*made_with[0], _STANDS[name].format(directory), f"{directory}/empty.js"), Path("/"))
        if name == "fork":  # it may have been built for another machine, or where nothing can be executed
            _run(
                ("python3", "-c", "import ctypes, sys; ctypes.PyDLL(sys.argv[1])", f"{directory}/fork.so"),
                Path("/"),
            )
        if os.geteuid() == 0:
            if directory.parent.stat().st_mode & 0o777 != 0o755:  # right in a container, and read-only
                directory.parent.chmod(0o755)  # it may have been created under another umask
            if closed := _closed(directory):
                raise PermissionError(
                    f"programs run as other users, who cannot read {closed}: chmod a+rx {closed}, or set XDG_CACHE_HOME to a folder "
                    "that all users may read"
                )
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("no prepared %s, programs will be slower: %s", name, error)
        return None
    return directory


def _useless(name: str) -> bool:
    """Whether `name` is a snapshot, and this machine's node was built with one: another makes its start slower, 20 ms become 25."""
    return name in _SNAPSHOTS and _has_snapshot()


@cache
def _has_snapshot() -> bool:
    asked = ("node", "-p", "process.config.variables.node_use_node_snapshot")
    said = subprocess.run(asked, env=_ENV, capture_output=True, check=True, timeout=60).stdout
    return said.strip() == b"true"


def _preamble(name: str) -> "_Recipe":
    # The options of the compile commands: g++ does not use a header that was precompiled with other options.
    gxx = ("g++", *GXX_OPTIONS, *(CONTEST_OPTIONS if name.endswith(CONTEST) else ()))

    def make(directory: Path) -> None:
        header = directory / "preamble.h"
        header.write_text(PREAMBLES[name])
        _run((*gxx, "-x", "c++-header", str(header), "-o", f"{header}.gch"), directory)

    return (gxx, PREAMBLES[name]), make


def _snapshot(name: str) -> "_Recipe":
    node: tuple[str, ...] = ("node", f"--max-old-space-size={heap_mib(Limits())}")
    if name.endswith(CONTEST):
        node += (CONTEST_NODE_OPTION.format(stack=stack_mib(Limits())),)

    def make(directory: Path) -> None:
        (directory / "start.js").write_text(_AT_START)
        (directory / "empty.js").write_text("")
        made = f"--snapshot-blob={directory}/node.blob"
        _run((*node, made, "--build-snapshot", f"{directory}/start.js"), directory)

    return (node, _AT_START), make


def _library(name: str) -> "_Recipe":
    source = _SERVERS / f"{name}.c"

    def make(directory: Path) -> None:
        _run((*_GCC, str(source), "-o", f"{directory}/{name}.so"), directory)

    return (_GCC, source.read_text() + (_SERVERS / "child.h").read_text()), make


def _run(argv: tuple[str, ...], directory: Path) -> None:
    subprocess.run(argv, env=_ENV | {"TMPDIR": str(directory)}, check=True, capture_output=True, timeout=300)


_Recipe = tuple[tuple[tuple[str, ...], str], Callable[[Path], None]]
_RECIPES: dict[str, Callable[[], _Recipe]] = {
    **{name: partial(_preamble, name) for name in PREAMBLES},
    **{name: partial(_snapshot, name) for name in _SNAPSHOTS},
    "fork": partial(_library, "fork"),
    "zygote": partial(_library, "zygote"),
}
"""By name of the prepared file, a function that returns ((the tool's command, the text to build from), the build function)."""


def _cache() -> Path:
    default = Path("/var/cache") if os.geteuid() == 0 else Path.home() / ".cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or default) / "selftrain-sandbox"


def _build(directory: Path, make: Callable[[Path], None]) -> None:
    """Build `directory` unless it exists. Idempotent; several processes may call it at once."""
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


def _closed(directory: Path) -> Path | None:
    """The first of `directory` and its parents that not all users may enter; None if they may enter all of them."""
    folders = (directory, *directory.parents)
    return next((path for path in folders if not path.stat().st_mode & 0o001), None)


if __name__ == "__main__":
    asked = [name for arg in sys.argv[1:] for name in (PREAMBLES if arg == "preamble" else [arg])]
    os.umask(0o022)
    sys.exit(any(prepared(name, Limits())[1] is None for name in asked if not _useless(name)))
