"""Warm compilers: compiler processes (javac, mcs, tsc, Python) that keep running and compile many programs.

javac, mcs and tsc take much longer to start than to compile a program. Python's parser is faster in memory that is mapped
already.

Compiling executes nothing of a program, so one compiler may serve many programs. It runs as a user that no program has and that
may write nowhere (mcs: to its own directory in /tmp). The runner sends sources to its standard input, reads the results from its
standard output, and writes them into the program's directory. A failure of a warm compiler is never a verdict: if it dies or
exceeds a limit, the runner ends it and compiles the program with a new compiler process under the usual limits. A warm compiler
is also replaced after many programs.
"""

import contextlib
import os
import select
import struct
import subprocess
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from sandbox.confine import confine
from sandbox.languages import JAVAC_OPTIONS, JVM, MCS_OPTIONS, PATH
from sandbox.launch import rlimits
from sandbox.processes import cpu_seconds, forget, resident_bytes
from sandbox.verdicts import MIB, Limits

LARGEST_PYTHON = 48 << 10
"""The warm compiler compiles Python programs up to this size, in bytes of source and of code. A larger program is compiled by its
own process, under its limits."""
PYTHON_SECONDS = 5.0
"""How long the warm compiler may take for a Python program."""

WITH_FILES = {"java": ("-sourcepath", "{dir}"), "ts": ("--types", " ")}
"""Further options of compilers for programs with `files`: javac finds classes there, tsc takes no folder there for a package of types."""

_SERVERS = Path(__file__).parent / "servers"
_COMPILED = Path("/opt/servers")
"""The folder in Docker's images with the compiled files of `servers/`."""
_TYPESCRIPT = Path("/usr/share/nodejs/typescript/lib/typescript.js")
_MONO = "/usr/lib/mono/4.5"
_LARGEST = 32 * MIB
"""The most bytes of one text or file in a compiler's answer."""
_PIPE = 1 << 16
_MEMORY = 700 * MIB
"""A compiler whose resident memory is larger is replaced."""
_SERVES = 1000
"""A compiler is replaced after this many programs, because it may keep data of each."""
REMEMBERS = {"py": 4}
"""By language, how many of its last results a compiler remembers. The driver of `sandbox.split` is compiled again and again. Results
of other languages tell how long compiling took, so each program is compiled."""
_LOOKS = 8
"""A compiler's memory is checked after each group of this many programs."""


@dataclass(frozen=True)
class Compiled:
    """The output of a warm compiler for one program: exit code, message (`said`), files by name, and the time that it took."""

    exit_code: int
    said: bytes
    files: dict[str, bytes]
    wall_seconds: float
    cpu_seconds: float


def limits_of_compiler(given: Limits, own: Limits) -> Limits:
    """A program's limits `given`, for its compiler: those on sizes and processes are at least its language's `own`, because low limits
    are meant for the program only."""
    sizes = ("memory_bytes", "output_bytes", "file_bytes", "processes")
    return replace(given, **{name: max(getattr(given, name), getattr(own, name)) for name in sizes})


def command(language: str) -> tuple[str, ...] | None:
    """The command that starts the warm compiler of `language`; None if there is none or it is not installed."""
    if language == "java" and (_COMPILED / "JavaCompile.class").is_file():
        return ("java", *JVM, "-Xss4m", "-Xmx400m", "-cp", str(_COMPILED), "JavaCompile", *JAVAC_OPTIONS)
    if language == "cs" and (_COMPILED / "CsCompile.exe").is_file():
        return ("env", f"MONO_PATH={_MONO}", "mono", str(_COMPILED / "CsCompile.exe"), *MCS_OPTIONS)
    if language == "ts" and _TYPESCRIPT.is_file():
        return ("node", "--max-old-space-size=500", str(_SERVERS / "tsc.js"), str(_TYPESCRIPT))
    if language == "py":
        return ("env", "PYTHONHASHSEED=0", "python3", "-S", str(_SERVERS / "compile.py"))
    return None


class Compiler:
    """One warm compiler: a process started with `argv` as user `uid`. It remembers its last `remembers` results."""

    def __init__(self, argv: tuple[str, ...], uid: int, remembers: int) -> None:
        limits = Limits(file_bytes=_LARGEST if "mono" in argv else 1, processes=256)
        kernel = rlimits(limits, cpu_seconds=24 * 3600, address_space=False, processes=True)
        self.process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={"PATH": PATH, "HOME": "/nonexistent", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"},
            preexec_fn=partial(confine, kernel, uid, os.getpid()),
        )
        assert self.process.stdin
        assert self.process.stdout
        self._to, self._from = self.process.stdin, self.process.stdout
        os.set_blocking(self._to.fileno(), False)
        self.pid = self.process.pid
        self.served = 0
        self._unread = b""
        self._remembers = remembers
        self._known: dict[tuple[str, bytes], Compiled] = {}

    def compile(self, name: str, source: bytes, seconds: float) -> Compiled | None:
        """Compile `source` as the contents of file `name`. Options or a processor number may precede the name; see `servers/`.

        Returns None if the compiler failed or took longer than `seconds`; it must not be used again then.
        """
        if (known := self._known.pop((name, source), None)) is not None:
            self._known[name, source] = known
            return replace(known, wall_seconds=0.0, cpu_seconds=0.0)
        started, cpu = time.monotonic(), cpu_seconds(self.pid)
        self._deadline = started + seconds
        try:
            self._send(b"".join(struct.pack(">I", len(part)) + part for part in (name.encode(), source)))
            exit_code, said = self._number(), self._bytes()
            files = {self._bytes().decode(): self._bytes() for _ in range(self._number())}
        except (OSError, ValueError, EOFError):
            return None
        spent = cpu_seconds(self.pid) - cpu
        self.served += 1
        done = Compiled(exit_code, said, files, time.monotonic() - started, spent)
        self._known[name, source] = done
        if len(self._known) > self._remembers:
            del self._known[next(iter(self._known))]
        return done

    @property
    def worn(self) -> bool:
        """Whether the compiler has to be replaced: it has compiled `_SERVES` programs, or its memory has grown too large."""
        grown = self.served % _LOOKS == 0 and resident_bytes(self.pid) > _MEMORY
        return grown or self.served >= _SERVES

    def close(self) -> None:
        """End the compiler's process."""
        forget(self.pid)
        for pipe in (self._to, self._from):
            with contextlib.suppress(OSError):
                pipe.close()
        self.process.kill()
        self.process.wait()

    def _send(self, data: bytes) -> None:
        fd = self._to.fileno()
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(fd, left) :]
            except BlockingIOError:
                self._wait(fd, select.POLLOUT)

    def _number(self) -> int:
        return int(struct.unpack(">I", self._read(4))[0])

    def _bytes(self) -> bytes:
        length = self._number()
        if length > _LARGEST:
            raise ValueError(f"an answer of {length} bytes")
        return self._read(length)

    def _read(self, length: int) -> bytes:
        fd = self._from.fileno()
        parts, there = [self._unread], len(self._unread)
        while there < length:
            self._wait(fd, select.POLLIN)
            if not (part := os.read(fd, _PIPE)):
                raise EOFError
            parts.append(part)
            there += len(part)
        data = b"".join(parts)
        self._unread = data[length:]
        return data[:length]

    def _wait(self, fd: int, event: int) -> None:
        poll = select.poll()
        poll.register(fd, event)
        if not poll.poll(1000 * max(self._deadline - time.monotonic(), 0)):
            raise TimeoutError
