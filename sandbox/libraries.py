"""Libraries that programs ask for and that are no part of their language: how they are linked, and which was not there.

Which libraries the images have is in the table of languages (`Language.libraries`, `NODE_MODULES`); the other backends have those of
the machine.
"""

import re
import subprocess
from collections import Counter
from collections.abc import Iterable
from functools import cache

from sandbox.languages import PATH, Language
from sandbox.verdicts import Verdict

_ASKS_FOR_OPENSSL = re.compile(r'(?m)^[ \t]*(?:#|%:)[ \t]*include[ \t]*[<"]openssl/')
# One argument, so that all of it is left out where it is empty. A program that uses nothing of a library does not load it: the
# #include may have been in a comment.
_LINK_OPENSSL = "-Wl,--as-needed,-lssl,-lcrypto"
_LONGEST = 100
_FAILED = (Verdict.compile_error, Verdict.runtime_error, Verdict.wrong_answer)
_NEEDS, _NOT_HERE = "needs ", ", which is not installed here; see Libraries in sandbox/README.md"


def openssl(source: str) -> str:
    """How a C++ program that includes a header of OpenSSL is linked with it; empty for others, and where OpenSSL is not there."""
    return _LINK_OPENSSL if _ASKS_FOR_OPENSSL.search(source) and _has_openssl() else ""


@cache
def _has_openssl() -> bool:
    """Whether g++ finds OpenSSL to link: else a program that only speaks of it would not be compiled."""
    names = ("libssl.so", "libcrypto.so")
    return all(_found(name) != name for name in names)


def _found(name: str) -> str:
    """Where g++ finds a library; its mere name where it does not."""
    said = subprocess.run(
        ("g++", f"-print-file-name={name}"), env={"PATH": PATH}, capture_output=True, text=True, check=True
    )
    return said.stdout.strip()


def missing_library(row: Language, said: str) -> str:
    """The library that a failed program asked for in vain, by what its language `said`; empty where that tells of none. Programs
    can say so themselves: it is what they say, not what is so."""
    found = re.search(row.missing, said)
    name = found[found.lastindex or 0] if found else ""
    return "".join(c if c.isprintable() else "?" for c in name[:_LONGEST])


def note(row: Language, verdict: Verdict, stdout: str, stderr: str) -> str:
    """What a result has to tell of a library that is not there: one line, or nothing."""
    if verdict not in _FAILED:
        return ""
    own = stderr + "\n" + stdout if row.reports_on_stdout or verdict is Verdict.compile_error else stderr
    name = missing_library(row, own)
    return f"{_NEEDS}{name}{_NOT_HERE}" if name else ""


def counted(notes: Iterable[str]) -> str:
    """Which libraries notes tell of, and how many of each: `numpy 3, js-md5 1`; empty where none does."""
    names = Counter(filter(None, map(named_in, notes)))
    return ", ".join(f"{name} {count}" for name, count in names.most_common())


def named_in(note: str) -> str:
    """The library that a result's note tells of; empty where it tells of none."""
    return note.removeprefix(_NEEDS).removesuffix(_NOT_HERE) if note.endswith(_NOT_HERE) else ""
