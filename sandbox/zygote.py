"""Zygotes: processes that have done what starting node or compiling C++ always begins with, and fork one child per program.

    node, node-contest     node before its `main`: half of starting node is loading and relocating its libraries
    the names of PREAMBLES cc1plus, the compiler proper of g++, after it has read a precompiled header and instantiated the
                           templates that wait in it, which otherwise takes longer than compiling the program

`servers/zygote.c` turns the commands into zygotes. A child becomes the program's user, with its limits, before it reads anything of
the program. It has the arguments and the environment of the command that it replaces. For node the text of a request (`Forked`) is
the number of arguments, the arguments and the environment; for cc1plus it is the output file, and the data is the source.

What is not covered: programs with a byte order mark or `__TIMESTAMP__`, and those that are larger than `LARGEST_SOURCE`, are
compiled by g++.
"""

import resource
import select
import shlex
import subprocess
from pathlib import Path

from sandbox.encoding import encoded, is_text
from sandbox.errors import SandboxError
from sandbox.languages import CONTEST_OPTIONS, GXX_OPTIONS, PATH
from sandbox.launch import Command, Server
from sandbox.preamble import CONTEST, PREAMBLES, without_includes
from sandbox.prepared import prepared
from sandbox.verdicts import Limits, Program

NODE = "node"
LARGEST_SOURCE = 48 << 10
"""The most bytes of a source that a zygote compiles; less than in `servers/zygote.c`."""
_READY_SECONDS = 60.0
_ENV = {"PATH": PATH, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}


class Zygote(Server):
    """The zygote `name`, ready to serve. `directory`: where its programs are. `calls`: as in `Server`. Raises `OSError`, `SandboxError`."""

    def __init__(self, name: str, directory: Path, calls: bytes) -> None:
        library, _ = prepared("zygote", Limits())
        if not library:
            raise SandboxError("there is no library for zygotes")
        env = _ENV | {"LD_PRELOAD": library, "SANDBOX_SOCKET": "{socket}"}
        contest = name.endswith(CONTEST)
        argv: list[str] = [NODE]
        if name in PREAMBLES:
            argv = _compiler(name, directory, CONTEST_OPTIONS if contest else ())
            env |= {"SANDBOX_MAIN": f"{directory}/main.cpp", "SANDBOX_OUT": f"{directory}/main.s"}
        # The kernel lays out a process's memory by the limit of its stack at its start.
        deep = contest and name not in PREAMBLES
        stack = resource.getrlimit(resource.RLIMIT_STACK)[1] if deep else None
        super().__init__(name, argv, env, calls, stack)
        if not select.select([self.socket], [], [], _READY_SECONDS)[0] or self.socket.recv(64) != b"ready":
            self.close()
            raise SandboxError(f"zygote {name} does not start")


def _compiler(name: str, directory: Path, options: tuple[str, ...]) -> list[str]:
    """The command of cc1plus by which g++ would compile main.cpp in `directory`."""
    header, _ = prepared(name, Limits())
    if not header:
        raise SandboxError(f"there is no precompiled header {name}")
    source, out = f"{directory}/main.cpp", f"{directory}/main.s"
    asked = ("g++", *GXX_OPTIONS, *options, header, source, "-###", "-S", "-o", out)
    said = subprocess.run(asked, env=_ENV, capture_output=True, text=True, timeout=60, check=True).stderr
    (command,) = (line for line in said.splitlines() if line.startswith(" ") and "cc1plus" in line)
    return shlex.split(command)


def node_name(program: Program) -> str:
    """The name of the zygote that runs `program`."""
    return NODE + CONTEST if program.cases else NODE


def node_job(command: Command) -> list[str]:
    """The text of a request for `command`, whose program is node."""
    return [str(len(command.argv)), *command.argv, *map("=".join, command.env.items())]


def compilable(text: bytes) -> bool:
    """Whether a zygote compiles `text` as g++ does."""
    odd = text.startswith(b"\xef\xbb\xbf") or b"__TIMESTAMP__" in text or not is_text(text)
    return len(text) <= LARGEST_SOURCE and not odd


def source(text: str, name: str) -> bytes:
    """The source that the zygote `name` gets for a program `text`."""
    return encoded(without_includes(text, name)) or b"\n"
