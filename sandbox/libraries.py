"""Links third-party libraries into programs, and finds out which library a failed program lacked.

`Language.libraries` and `NODE_MODULES` in `sandbox.languages` list the libraries of Docker's images. With the other backends,
programs use the libraries of the machine.
"""

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable
from functools import cache

from sandbox.languages import PATH, Language
from sandbox.verdicts import Verdict

_ASKS_FOR_OPENSSL = re.compile(r'(?m)^[ \t]*(?:#|%:)[ \t]*include[ \t]*[<"]openssl/')
# One argument, because a command's empty arguments are left out. --as-needed: a program that uses nothing of OpenSSL does not
# load it; the #include may have been in a comment.
_LINK_OPENSSL = "-Wl,--as-needed,-lssl,-lcrypto"
_LONGEST = 100
_FAILED = (Verdict.compile_error, Verdict.runtime_error, Verdict.wrong_answer)
_MISSING, _NOT_HERE = "dependency_missing: ", " is not found here; see Libraries in sandbox/README.md"


def openssl(source: str) -> str:
    """The linker option for a C++ program that includes a header of OpenSSL; empty for other programs, and without OpenSSL."""
    return _LINK_OPENSSL if _ASKS_FOR_OPENSSL.search(source) and _has_openssl() else ""


@cache
def linker() -> str:
    """g++'s option for gold, which links in a third of the time; empty if gold is not installed."""
    return "-fuse-ld=gold" if shutil.which("ld.gold", path=PATH) else ""


@cache
def _has_openssl() -> bool:
    """Whether g++ finds OpenSSL. If not, programs are linked without it: the #include may be in a comment."""
    for name in ("libssl.so", "libcrypto.so"):
        asked = ("g++", f"-print-file-name={name}")
        said = subprocess.run(asked, env={"PATH": PATH}, capture_output=True, text=True, check=True).stdout
        if said.strip() == name:  # not a path
            return False
    return True


def missing_library(row: Language, said: str) -> str:
    """The name of the library that a failed program lacked, read from its language's error message `said`; empty if the message
    names no library. A program can print such a message itself."""
    found = re.search(row.missing, said)
    name = found[found.lastindex or 0] if found else ""
    return "".join(c if c.isprintable() else "?" for c in name[:_LONGEST])


def note(row: Language, verdict: Verdict, exit_code: int | None, stdout: str, stderr: str) -> str:
    """The `note` of a result: one line, `dependency_missing: ` and the name of the missing library; empty if none is missing.

    `exit_code`: of the program's last command. A program that ends with 0 went on without the library, so it lacked none. Scripts
    of Bash go on after every failed command, so there the exit code says nothing.
    """
    if verdict not in _FAILED or (exit_code == 0 and row.name != "sh"):
        return ""
    own = stderr + "\n" + stdout if row.reports_on_stdout or verdict is Verdict.compile_error else stderr
    name = missing_library(row, own)
    return f"{_MISSING}{name}{_NOT_HERE}" if name else ""


def counted(notes: Iterable[str]) -> str:
    """The missing libraries that `notes` name, with their counts, as in `numpy 3, js-md5 1`; empty if no note names one."""
    names = Counter(filter(None, map(named_in, notes)))
    return ", ".join(f"{name} {count}" for name, count in names.most_common())


def named_in(note: str) -> str:
    """The missing library that a result's note names; empty if the note is about something else."""
    return note.removeprefix(_MISSING).removesuffix(_NOT_HERE) if note.startswith(_MISSING) else ""
