"""Starts a command as a child process: by fork and exec, or from the warm Python interpreter."""

import contextlib
import errno
import math
import os
import resource
import select
import socket
import subprocess
import threading
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sandbox.confine import RLIMIT_MSGQUEUE, Rlimits, confine, die_with_parent, filter_calls
from sandbox.errors import SandboxError
from sandbox.processes import Usage, forget, reap
from sandbox.verdicts import Limits
from sandbox.watch import MOMENT, Stdio

# This package comes last on sys.path, so that none of its files shadows a module of Python's standard library.
_FORK_SERVER = """import sys
fresh = {*sys.modules}
sys.path.append(sys.argv[1])
from sandbox.shelf import Shelf
shelf = Shelf(fresh)
from sandbox.forkserver import start
start(int(sys.argv[2]), {*map(int, sys.argv[3].split(","))}, sys.argv[4] == "compiling", sys.argv[5], shelf)
"""

SPARE_PROCESSES = 16
"""The kernel allows this many processes above `Limits.processes`, so that `sandbox.watch` can see a program exceed its limit."""


@dataclass(frozen=True)
class Command:
    """A command to run: `argv` in `directory` with exactly the environment `env`, as user `uid` (None: the runner's user).

    `reads`: paths that the command needs to read, besides the system's directories. `at_home`: with bubblewrap, whether the
    command starts in the writable home directory of its box (if not, in `directory`). `calls`: a filter of `sandbox.seccomp`.
    """

    argv: tuple[str, ...]
    directory: Path
    env: Mapping[str, str]
    rlimits: Rlimits
    uid: int | None = None
    reads: tuple[Path, ...] = ()
    at_home: bool = True
    calls: bytes = b""


def rlimits(
    limits: Limits, cpu_seconds: float, *, address_space: bool, processes: bool, deep: bool = False
) -> Rlimits:
    """Limits that the kernel enforces on each process. They are a second line of defence behind `sandbox.watch`, which enforces
    the limits over all processes of a program.

    `address_space`, `processes`: whether to limit these. `deep`: the stack may grow up to the memory limit.
    """
    # Well above the program's limit. The kernel counts ticks for this limit: on a busy virtual machine it counted 7 s as 11 s.
    cpu = 2 * math.ceil(cpu_seconds) + 5
    found: Rlimits = {
        resource.RLIMIT_CPU: (cpu, cpu + 1),
        resource.RLIMIT_FSIZE: (limits.file_bytes, limits.file_bytes),
        resource.RLIMIT_NOFILE: (512, 512),
        # No core dump. With 0, a handler that core_pattern names would still be started.
        resource.RLIMIT_CORE: (1, 1),
        RLIMIT_MSGQUEUE: (0, 0),  # none, because message queues would outlive the program
    }
    if deep:
        # The hard limit is usually infinite. With a finite limit, each thread would reserve a stack of that size.
        largest = resource.getrlimit(resource.RLIMIT_STACK)[1]
        found[resource.RLIMIT_STACK] = (largest, largest)
    if address_space:
        found[resource.RLIMIT_AS] = (limits.memory_bytes, limits.memory_bytes)
    if processes:
        found[resource.RLIMIT_NPROC] = (limits.processes + SPARE_PROCESSES,) * 2
    return found


class Spawned:
    """A command started by fork and exec. The descriptors `pass_fds` stay open in it."""

    def __init__(self, command: Command, stdio: Stdio, pass_fds: tuple[int, ...] = ()) -> None:
        """Start the command. Raises `SandboxError` if that fails."""
        try:
            try:
                self._process = self._start(command.argv, command, stdio, pass_fds)
            except OSError:
                if not _made_by_compiler(command):
                    raise
                # A file that its compiler made and nobody can execute (a Go package other than main, a Rust library): the
                # program's failure. `env` reports it as a shell does, by exit code 126 or 127.
                self._process = self._start(("env", *command.argv), command, stdio, pass_fds)
        except (OSError, subprocess.SubprocessError) as error:
            raise SandboxError(f"cannot start {command.argv[0]}: {error}") from error
        self.pid = self._process.pid
        self._end = _end_of(self.pid)

    @staticmethod
    def _start(
        argv: tuple[str, ...], command: Command, stdio: Stdio, pass_fds: tuple[int, ...]
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            argv,
            stdin=stdio[0],
            stdout=stdio[1],
            stderr=stdio[2],
            cwd=command.directory,
            env=dict(command.env),
            pass_fds=pass_fds,
            preexec_fn=partial(confine, command.rlimits, command.uid, os.getpid(), command.calls),
        )

    def fileno(self) -> int:
        return self._end

    def wait(self) -> tuple[int, Usage] | None:
        select.select([self._end], [], [], MOMENT)
        ended = reap(self.pid)
        if ended is None:
            return None
        status, used = ended
        self._process.returncode = 0  # `reap` has waited for the process; Popen must not
        return _exit_code(status), Usage(used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)

    def close(self) -> None:
        os.close(self._end)


def _made_by_compiler(command: Command) -> bool:
    """Whether `command` executes a file in its directory."""
    return Path(command.argv[0]).parent == command.directory and Path(command.argv[0]).is_file()


def _end_of(pid: int) -> int:
    """A file descriptor that becomes readable when child `pid` has ended. The child is not reaped."""
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno != errno.ENOSYS:  # gVisor has no pidfd_open
            raise
    ours, theirs = os.pipe()

    def wait() -> None:
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        os.close(theirs)

    threading.Thread(target=wait, daemon=True).start()
    return ours


def runnable(program: bytes, compiled: bool, marker: str) -> bytes:
    """A Python program (its source, or its marshalled code if `compiled`) for `servers/fork.c`, which prints `marker` at the
    program's end (empty: nothing)."""
    return f"{'c' if compiled else 's'}{marker}\n".encode() + program


@contextlib.contextmanager
def in_memory(data: bytes) -> Iterator[int]:
    """A descriptor of a file in memory with `data`: in a message, every child would inherit it with the server's memory."""
    fd = os.memfd_create("program")
    try:
        unwritten = memoryview(data)
        while unwritten:
            unwritten = unwritten[os.write(fd, unwritten) :]
        os.lseek(fd, 0, os.SEEK_SET)
        yield fd
    finally:
        os.close(fd)


class Forked:
    """A child of a `Server`. `job`, `data` (may be empty): what it is to do; each server says what it expects."""

    def __init__(
        self, server: "Server", command: Command, job: Iterable[str], data: bytes, stdio: Stdio
    ) -> None:
        self._server = server
        limits = " ".join(f"{which} {soft} {hard}" for which, (soft, hard) in command.rlimits.items())
        head = f"{-1 if command.uid is None else command.uid}\n{limits}\n{command.directory}\n"
        request = (head + "\0".join(job)).encode()
        with in_memory(data) if data else contextlib.nullcontext() as file:
            files = [] if file is None else [file]
            socket.send_fds(server.socket, [request], [*stdio, *files])

    def fileno(self) -> int:
        return self._server.socket.fileno()

    def wait(self) -> tuple[int, Usage] | None:
        if not select.select([self._server.socket], [], [], MOMENT)[0]:
            return None
        status, seconds, memory = self._server.answer().split()
        return _exit_code(int(status)), Usage(float(seconds), int(memory))

    def close(self) -> None:
        pass


class Server:
    """A process that forks one child per request (`Forked`), started with `argv` and `env`.

    `{socket}` in these stands for the number of the descriptor over which requests come. `title`: what its children are, for
    messages. `calls`: a filter of `sandbox.seccomp`, which all programs inherit. `stack`: the limit of its stack in bytes; None: as
    that of this process.
    """

    def __init__(
        self, title: str, argv: Iterable[str], env: Mapping[str, str], calls: bytes, stack: int | None = None
    ) -> None:
        self._title = title
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        number = str(theirs.fileno())
        with theirs:
            self._process = subprocess.Popen(
                [part.replace("{socket}", number) for part in argv],
                # Pipes, because the programs get pipes: Python configures its streams at start, and the children inherit that.
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd="/",
                # Symbols bound before the fork are bound in all children.
                env={name: value.replace("{socket}", number) for name, value in env.items()}
                | {"LD_BIND_NOW": "1"},
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                preexec_fn=partial(_enter_server, os.getpid(), calls, stack),
            )
        self.pid = self._process.pid

    def answer(self) -> str:
        """The server's next message. Raises `SandboxError` if it reports a failure or the server has ended."""
        answer = ""
        with contextlib.suppress(OSError):
            answer = self.socket.recv(1 << 16).decode()
        if answer.startswith("failed"):
            raise SandboxError(f"cannot start a {self._title} program: {answer}")
        if not answer:
            raise SandboxError(f"the {self._title} fork server ended unexpectedly")
        return answer

    def close(self) -> None:
        self.socket.close()
        forget(self.pid)
        self._process.kill()
        self._process.communicate()


class ForkServer(Server):
    """The process of `sandbox.forkserver`, started with interpreter `python` and environment `env`.

    `processors`: the processors on which programs may run. `compiling`, `library`: as in `sandbox.forkserver.start`. `calls`: as in
    `Server`.
    """

    def __init__(
        self,
        python: str,
        env: Mapping[str, str],
        processors: Set[int],
        compiling: bool,
        library: str,
        calls: bytes = b"",
    ) -> None:
        root, where = str(Path(__file__).parent.parent), ",".join(map(str, processors))
        does = "compiling" if compiling else "running"
        argv = (python, "-c", _FORK_SERVER, root, "{socket}", where, does, library)
        super().__init__("Python", argv, env, calls)


def _enter_server(parent: int, calls: bytes, stack: int | None) -> None:
    die_with_parent(parent)
    if stack is not None:
        resource.setrlimit(resource.RLIMIT_STACK, (stack, stack))
    filter_calls(calls)


def _exit_code(status: int) -> int:
    """The exit code of wait status `status` as a shell reports it: 128 + n after signal n."""
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)
