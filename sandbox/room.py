"""Recognizes a full disk, on which the failure of a compiler is the sandbox's failure and not a verdict.

A disk counts as full if it has little free space, or if a compiler's message says so. The message is ignored if the program's
source contains such words too, because compilers quote what they reject. The limits on time and file size bound how much a
compiler may write; a program that makes it exceed them is a `compile_error`. If the disk fills up within these limits, it is a
`SandboxError`, and the client retries the program as after any failure of the sandbox.
"""

import os
import re

from sandbox.errors import SandboxError
from sandbox.verdicts import MIB

_LEAST_BYTES = MIB
_LEAST_FILES = 16
_SAID = re.compile(rb"(?i)no space left on device|disk quota exceeded|disk full|\bENOSPC\b|\bEDQUOT\b")


def check_room(directory: str) -> None:
    """Raise `SandboxError` if `directory` has less than 1 MiB or 16 files left."""
    found = os.statvfs(directory)
    left, files = found.f_bavail * found.f_frsize, found.f_favail if found.f_files else _LEAST_FILES
    if left < _LEAST_BYTES or files < _LEAST_FILES:
        _fail(directory, f"{left >> 10} KiB and {files} files are left there")


def check_compiled(directory: str, source: bytes, said: bytes) -> None:
    """Raise `SandboxError` if the compiler may have rejected `source`, with message `said`, because the disk is full."""
    check_room(directory)
    if (found := _SAID.search(said)) and not _SAID.search(source):
        _fail(directory, f"the compiler said {found[0].decode()!r}")


def _fail(directory: str, why: str) -> None:
    raise SandboxError(
        f"no room to compile or run a program in {os.path.dirname(directory)}: {why}; make room, or set TMPDIR to a folder that "
        "has some (backend docker: this program needs more than a container has)"
    )
