"""Backend `bubblewrap`, which runs each program in a box of new namespaces (https://github.com/containers/bubblewrap).

Inside its box a program sees
- the system's programs and libraries, read-only;
- its own directory as /box, read-only too while the program runs, unless it exchanges files with the caller;
- a small /tmp and /dev/shm in memory;
- no network, no other process, no other user's file.

The program cannot create user namespaces, and a filter refuses system calls that it does not need (`sandbox.seccomp`).
"""

import contextlib
import os
import resource
import shutil
import subprocess
import sys
from dataclasses import replace
from glob import glob
from pathlib import Path

from sandbox import seccomp
from sandbox.confine import program_uid
from sandbox.errors import BackendUnavailable, SandboxError
from sandbox.languages import PATH
from sandbox.launch import SPARE_PROCESSES, Command, Spawned, in_memory
from sandbox.processes import Usage
from sandbox.verdicts import MIB, Limits
from sandbox.watch import Stdio

NAME = "bubblewrap"
BOX = "/box"
"""The path of a program's own directory inside its box."""
HOME = "/tmp"  # noqa: S108 - inside the box
"""A program's working directory inside its box, where it may write."""
IN_MEMORY = ("/dev/shm", HOME)  # noqa: S108
"""The file systems in memory of a box, where a program may write."""
OVERHEAD_BYTES = 8 * MIB
"""Added to the memory limit, because `sandbox.watch` also counts the box's own two processes (about 3 MiB)."""

_ROOT = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_ETC = ("/etc/alternatives", "/etc/ld.so.cache", "/etc/mono", "/etc/php", "/etc/java-*")


def command() -> tuple[str, ...]:
    """The command that starts a worker process. Raises `BackendUnavailable` if bubblewrap does not work on this machine."""
    if shutil.which("bwrap", path=PATH) is None:
        raise BackendUnavailable(f"bubblewrap's program bwrap is not on {PATH}")
    uid = program_uid()
    trial_command = Command(("true",), Path("/usr"), {}, {}, calls=seccomp.program(memfd=True))
    with in_memory(trial_command.calls) as calls:
        trial = subprocess.run(
            wrapped(trial_command, Limits(), writable=False, calls=calls),
            pass_fds=(calls,),
            capture_output=True,
            text=True,
            user=uid,
            group=uid,
            extra_groups=None if uid is None else [],
            check=False,
        )
    if trial.returncode != 0:
        needs = "it has to be 0.8 or later, and user namespaces open to ordinary users"
        raise BackendUnavailable(f"bubblewrap does not work here ({needs}): {trial.stderr.strip()}")
    return (sys.executable, "-m", "sandbox.runner", NAME)


class Boxed(Spawned):
    """A command in its own box. `writable`: whether the command may write to its directory.

    The descriptors `pass_fds` stay open in the command. bubblewrap reports on a separate pipe how the command ended. If there is no
    report, bubblewrap itself failed.
    """

    def __init__(
        self, command: Command, stdio: Stdio, limits: Limits, writable: bool, pass_fds: tuple[int, ...] = ()
    ) -> None:
        self._status, theirs = os.pipe()
        os.set_blocking(self._status, False)
        try:
            with in_memory(command.calls) as calls:
                argv = wrapped(command, limits, writable, theirs, calls)
                outside = replace(command, argv=argv, env={"PATH": PATH}, calls=b"")
                super().__init__(outside, stdio, (theirs, calls, *pass_fds))
        except SandboxError:
            os.close(self._status)
            raise
        finally:
            os.close(theirs)

    def wait(self) -> tuple[int, Usage] | None:
        """As `Spawned.wait`. Raises `SandboxError` if bubblewrap failed before the command ended."""
        ended = super().wait()
        if ended is None:
            return None
        exit_code, used = ended
        status = b""
        with contextlib.suppress(BlockingIOError):
            status = os.read(self._status, 1 << 16)
        if exit_code < 128 and b'"exit-code"' not in status:
            raise SandboxError(f"bubblewrap could not set up a box (exit code {exit_code})")
        return exit_code, used

    def close(self) -> None:
        super().close()
        os.close(self._status)


def wrapped(
    command: Command, limits: Limits, writable: bool, status: int | None = None, calls: int | None = None
) -> tuple[str, ...]:
    """The command line that runs `command` in a box. `status`: the descriptor to which bubblewrap writes its report. `calls`: the
    descriptor from which it reads `command.calls`."""
    box = ["bwrap", "--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent"]
    box += ["--new-session", "--hostname", "sandbox", "--clearenv"]
    for name, value in command.env.items():
        box += ["--setenv", name, value]
    box += ["--ro-bind", "/usr", "/usr"]
    for path in _ROOT:
        if os.path.islink(path):
            box += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            box += ["--ro-bind", path, path]
    for path in (found for pattern in _ETC for found in sorted(glob(pattern))):
        box += ["--ro-bind", path, path]
    box += ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
    for path in IN_MEMORY:
        box += ["--size", str(limits.file_bytes), "--tmpfs", path]
    for path in map(str, command.reads):  # after the tmpfs mounts above, which may hide these paths
        box += ["--ro-bind", path, path]
    box += ["--bind" if writable else "--ro-bind", str(command.directory), BOX]
    box += ["--remount-ro", "/", "--chdir", HOME if command.at_home else BOX]
    if status is not None:
        box += ["--json-status-fd", str(status)]
    if calls is not None and command.calls:
        box += ["--seccomp", str(calls)]
    # prlimit sets the limit on processes inside the box. Outside, the limit would count all processes of the sandbox's user. In the
    # box nobody may raise a limit that is already lower.
    most, lower = limits.processes + SPARE_PROCESSES, resource.getrlimit(resource.RLIMIT_NPROC)[1]
    if lower != resource.RLIM_INFINITY:
        most = min(most, lower)
    return (*box, "--", "prlimit", f"--nproc={most}", *command.argv)
