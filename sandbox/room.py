"""Room for what compilers write: a disk that is full is never a program's doing, and its verdict none.

Told by what is left where programs are, and by what the compiler says, unless the program's source says so too: a compiler
repeats what it refuses. A compiler's output is bounded by the limits on time and on the size of each file; a program that is over
these is refused for it. What fills a disk within them is our failure, which is tried three times and then told.
"""

import os
import re

from sandbox.errors import SandboxError
from sandbox.verdicts import MIB

_LEAST_BYTES = MIB
_LEAST_FILES = 16
_SAID = re.compile(rb"(?i)no space left on device|disk quota exceeded|disk full|\bENOSPC\b|\bEDQUOT\b")


def check_room(directory: str) -> None:
    """Raise `SandboxError` where next to nothing can be written in `directory`."""
    found = os.statvfs(directory)
    left, files = found.f_bavail * found.f_frsize, found.f_favail if found.f_files else _LEAST_FILES
    if left < _LEAST_BYTES or files < _LEAST_FILES:
        _fail(directory, f"{left >> 10} KiB and {files} files are left there")


def check_compiled(directory: str, source: bytes, said: bytes) -> None:
    """The same after a compiler that worked there refused `source`, and `said` why."""
    check_room(directory)
    if (found := _SAID.search(said)) and not _SAID.search(source):
        _fail(directory, f"the compiler said {found[0].decode()!r}")


def _fail(directory: str, why: str) -> None:
    raise SandboxError(
        f"no room to compile or run a program in {os.path.dirname(directory)}: {why}; make room, or set TMPDIR to a folder that "
        "has some (backend docker: this program needs more than a container has)"
    )
