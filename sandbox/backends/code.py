"""Sends this package's code into a container over the container's standard input, before the first request.

A container's file system is read-only, and its image contains only tools. The container starts with the script `BOOTSTRAP`, which
reads the bytes that `payload` made, writes the files into a file system in memory where only root may write, and then runs
`python3 -m MODULE ARGUMENT...`.
"""

import importlib.util
import json
import py_compile
import tempfile
from functools import cache
from pathlib import Path

ROOT = "/opt/sandbox"
"""The folder in a container with this package's code."""
PACKAGE = Path(__file__).parent.parent
BOOTSTRAP = f"""import json, os, runpy, sys
def read(size):
    found = b""
    while len(found) < size:
        part = os.read(0, size - len(found))  # never more: requests come after it
        if not part:
            sys.exit("the runner's code was cut short")
        found += part
    return found
os.umask(0o022)
for name, size in json.loads(read(int(read(8), 16))):
    path = os.path.join({ROOT!r}, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(read(size))
del sys.argv[0]
sys.path[0] = {ROOT!r}
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


Source = tuple[str, Path]
"""A source file: its path below `ROOT` in the container, and its path on this machine."""


@cache
def payload(more: tuple[Source, ...] = ()) -> bytes:
    """The bytes to send: this package and the files of `more`. The files are read once per process; later edits have no effect.

    Format: the length of a JSON list as eight hexadecimal digits; the list, with (name, size) of each file; the contents of the
    files. Each module is followed by its bytecode, which another version of Python ignores.
    """
    files: list[tuple[str, bytes]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, path in (*sources(), *more):
            files.append((name, path.read_bytes()))
            if path.suffix == ".py":
                files.append((importlib.util.cache_from_source(name), _bytecode(path, name, folder)))
    names = json.dumps([(name, len(content)) for name, content in files]).encode()
    return b"%08x" % len(names) + names + b"".join(content for _, content in files)


def sources() -> list[Source]:
    """The source files of this package, in all languages."""
    paths = [path for ending in ("py", "java", "js", "cs", "c", "h") for path in PACKAGE.rglob(f"*.{ending}")]
    return sorted((path.relative_to(PACKAGE.parent).as_posix(), path) for path in paths if path.is_file())


def _bytecode(path: Path, name: str, folder: str) -> bytes:
    """The bytecode of the module in `path`, as an unchecked pyc: Python does not compare it with the source (PEP 552)."""
    made = Path(folder, "code")
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(path), str(made), f"{ROOT}/{name}", doraise=True, invalidation_mode=unchecked)
    return made.read_bytes()
