"""A warm Python compiler: compiles one source after another to byte code and runs none of them.

A child of the warm interpreter would take five times as long to compile, because it has to map every page of memory that the
parser touches. The protocol over standard input and output is that of JavaCompile.java. An answer with exit code 0 contains the
code in marshal's format. With any other exit code, the program's own process has to compile the source.
"""

import contextlib
import marshal
import os
import struct
import sys
import types
import warnings


def main() -> None:
    """Serve until standard input ends."""
    warnings.simplefilter("error")  # compiling fails on a warning, because the program itself has to print it
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    here = b""
    while request := _part(requests):
        processor, _, name = request.partition(b" ")
        if processor != here:
            here = processor
            with contextlib.suppress(OSError, ValueError):
                os.sched_setaffinity(0, {int(here)})
        code = _compiled(_part(requests), name.decode())
        answers.write(struct.pack(">III", code is None, 0, 0 if code is None else 1))
        for part in () if code is None else (b"code", code):
            answers.write(struct.pack(">I", len(part)) + part)
        answers.flush()


def _part(requests: "object") -> bytes:
    """The next part of a request; empty at the end of the input."""
    length = requests.read(4)  # type: ignore[attr-defined]
    return requests.read(*struct.unpack(">I", length)) if length else b""  # type: ignore[attr-defined]


def _compiled(source: bytes, name: str) -> "bytes | None":
    """The marshalled code of `source`; None if it does not compile or marshal would change it."""
    try:
        code = compile(source, name, "exec", dont_inherit=True)
        return None if _has_sets(code) else marshal.dumps(code)
    except (Exception, RecursionError, MemoryError):
        return None


def _has_sets(code: types.CodeType) -> bool:
    """Whether a constant is a set: marshal may change its iteration order."""
    return any(
        isinstance(constant, frozenset)
        or (isinstance(constant, tuple) and any(isinstance(one, frozenset) for one in constant))
        or (isinstance(constant, types.CodeType) and _has_sets(constant))
        for constant in code.co_consts
    )


if __name__ == "__main__":
    main()
