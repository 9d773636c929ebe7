"""A process that imports a child's libraries once, and of which each further child is a fork; on Linux, for CPUs.

Importing torch, transformers and trl takes a child 3 to 4 s of CPU time, and a run starts 15 to 30 children. A fork has them at once.
Not for GPUs: a fork cannot use CUDA where its parent did, and there the seconds do not count.

The server is started with the first child, and ends with the process that started it, or after IDLE_SECONDS without work. For each
child it gets a message over a socket: what to run, and three file descriptors, of the child's stdin, its output, and a pipe into which
the server writes the child's process id and, when it has ended, its exit code.
"""

import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

IDLE_SECONDS = 300
"""Seconds without a child after which the server ends and its memory is free."""
MODULE = "selftrain.launch.forkserver"
LINE = 2048
"""Bytes of the server's command line, and so of the longest that `ps` shows of a child."""
LONGEST_MESSAGE = 1 << 20
"""Bytes; the kernel's own limit is lower."""
BYTES = 4
"""Of a process id."""
FORKED: list[int] = []
"""Not empty in a process that the server has forked."""


def available() -> bool:
    """Whether this system has what the server needs: forks that may use the libraries, and descriptors of processes (Linux 5.3)."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return True


class Forked:
    """A child of the fork server, with the part of subprocess.Popen that `processes.run` uses.

    pid  its process id, and its group's; 0 where the server did not fork
    """

    def __init__(self, stdin: int, output: int, status: int) -> None:
        self.stdin = os.fdopen(stdin, "wb", buffering=0)
        self.stdout = os.fdopen(output, errors="replace")
        answer = os.read(status, BYTES)
        self.pid = int.from_bytes(answer, "big") if len(answer) == BYTES else 0
        self._code = -signal.SIGKILL  # if the server is killed, which then cannot say
        self._ended = threading.Event()
        threading.Thread(target=self._read, args=(status,), daemon=True).start()

    def _read(self, status: int) -> None:
        """Thread: wait for the exit code."""
        with os.fdopen(status, "rb") as pipe, suppress(ValueError):
            self._code = int(pipe.read())
        self._ended.set()

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, negative for a signal. Raises TimeoutExpired after `timeout` seconds."""
        if not self._ended.wait(timeout):
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return self._code


class ForkServer:
    """The parent's side. There is one server per environment, since libraries read theirs when they are imported.

    tag  variables by which the server's processes are found. Its children show these too: what a process shows is what it was
         started with, and only the programs that a child starts show the child's
    """

    def __init__(self, tag: dict[str, str]) -> None:
        self.tag = tag
        self._lock = threading.Lock()
        self._environment: dict[str, str] = {}
        self._socket: socket.socket | None = None
        self._servers: list[subprocess.Popen[bytes]] = []

    def start(
        self, command: Sequence[str], environment: dict[str, str], tag: dict[str, str]
    ) -> Forked | None:
        """Start `command`: [python, "-m", a module that runs a module, the module, argument, ...], with the variables of both.

        tag  variables that differ from child to child

        Returns None where the server ends before it forks, twice: it was killed for want of memory, or a library crashes when it is
        imported. A child without a server then says why by its output and its exit code.
        """
        with self._lock:
            if environment != self._environment:
                self._close()
            for _ in range(2):
                if self._socket is None:
                    self._start(environment)
                with suppress(OSError):
                    return self._fork(command, environment | tag)
                self._close()  # the server was idle and has ended, or something killed it, or it could not fork
        return None

    def _start(self, environment: dict[str, str]) -> None:
        ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        command = [sys.executable, "-m", MODULE, str(theirs.fileno())]
        with theirs:
            server = subprocess.Popen(
                [*command, "-" * LINE],  # room for the command lines of its forks
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment | self.tag,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._socket, self._environment = ours, environment
        self._servers = [server, *(old for old in self._servers if old.poll() is None)]

    def _close(self) -> None:
        """Let the server end as soon as its children have."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None

    def _fork(self, command: Sequence[str], environment: dict[str, str]) -> Forked:
        """Raises OSError where the server has ended or could not fork."""
        assert self._socket is not None
        content = json.dumps([list(command), environment, os.getcwd()]).encode()
        (stdin, ours), (output, theirs), (status, answer) = os.pipe(), os.pipe(), os.pipe()
        try:
            socket.send_fds(self._socket, [content], [stdin, theirs, answer])
        except OSError:
            for descriptor in (ours, output, status):
                os.close(descriptor)
            raise
        finally:
            for descriptor in (stdin, theirs, answer):
                os.close(descriptor)
        child = Forked(ours, output, status)
        if not child.pid:
            raise OSError
        return child


class _Server:
    """The server's side: one thread, which waits for messages and for the ends of children."""

    def __init__(self, parent: socket.socket) -> None:
        self.parent = parent
        self.children: dict[int, tuple[int, int]] = {}
        """Descriptor of a child's process -> its id, and the pipe for its exit code."""
        self.selector = selectors.DefaultSelector()

    def serve(self) -> None:
        """Fork and report until the parent has gone, or there has been nothing to do for IDLE_SECONDS, and no child is left."""
        self.selector.register(self.parent, selectors.EVENT_READ)
        while ready := self.selector.select(None if self.children else IDLE_SECONDS):
            for key, _ in ready:
                if key.fileobj is not self.parent:
                    self._report(key.fd)
                elif message := self._message():
                    self._fork(*message)
                else:
                    self.selector.unregister(self.parent)
            if not self.selector.get_map():
                return

    def _message(self) -> tuple[list[int], Any] | None:
        """The next message's descriptors and content; None where the parent has closed the socket."""
        content, descriptors, _, _ = socket.recv_fds(self.parent, LONGEST_MESSAGE, 3)
        return (descriptors, json.loads(content)) if content else None

    def _fork(self, descriptors: list[int], content: Any) -> None:
        command, environment, folder = content
        with suppress(BaseException):  # the child will raise it again, where it is read
            importlib.import_module(command[3])
        gc.disable()  # a library may have turned it on
        gc.freeze()  # the collector need not visit what is imported, nor copy its pages
        try:
            pid = os.fork()
        except OSError:
            # No memory, or too many processes: the parent reads no process id, and the other children go on.
            for descriptor in descriptors:
                os.close(descriptor)
            return
        if not pid:
            for process, (_, answer) in self.children.items():
                os.close(process)
                os.close(answer)
            self.selector.close()
            self.parent.close()
            _become(descriptors, command, environment, folder)
        process = os.pidfd_open(pid)
        self.children[process] = pid, descriptors[2]
        self.selector.register(process, selectors.EVENT_READ)
        for descriptor in descriptors[:2]:
            os.close(descriptor)

    def _report(self, process: int) -> None:
        pid, answer = self.children.pop(process)
        self.selector.unregister(process)
        code = exit_code(pid)
        with suppress(OSError):  # the parent may be gone
            os.write(answer, str(code).encode())
        os.close(answer)
        os.close(process)


def exit_code(pid: int) -> int:
    """Wait for a child of this process; its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _become(descriptors: list[int], command: list[str], environment: dict[str, str], folder: str) -> NoReturn:
    """Run `command` in this process, a fork, as if it had been started by it."""
    os.setsid()
    stdin, output, answer = descriptors
    os.write(answer, os.getpid().to_bytes(BYTES, "big"))  # from now on a signal to its group reaches it
    for number, descriptor in enumerate((stdin, output, output)):
        os.dup2(descriptor, number)
    for descriptor in descriptors:
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    _show(command)
    FORKED.append(os.getpid())
    sys.orig_argv[:], sys.argv[:] = command, command[3:]
    sys.modules.pop(command[3], None)  # it was imported; now it is the main module
    code = 0
    try:
        runpy.run_module(command[3], run_name="__main__", alter_sys=True)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    os._exit(code)


def _show(command: list[str]) -> None:
    """Let `ps` show `command`, in the memory of the command line that this process began with."""
    with suppress(OSError, ValueError):
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        start, end = int(fields[45]), int(fields[46])  # arg_start and arg_end of proc(5)
        line = "\0".join(command).encode()[: end - start - 1]
        with Path("/proc/self/mem").open("r+b", buffering=0) as memory:
            memory.seek(start)
            memory.write(line.ljust(end - start, b"\0"))


def main(descriptor: int) -> None:
    """The server: its socket is the inherited `descriptor`."""
    gc.disable()  # nothing that is imported is garbage; `launch.child_main` turns it on again
    _show([sys.executable, "-m", MODULE])
    _Server(socket.socket(fileno=descriptor)).serve()


if __name__ == "__main__":
    from selftrain.launch import forkserver

    forkserver.main(int(sys.argv[1]))  # of the module that children import: FORKED is to be the same
