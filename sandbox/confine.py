"""Restricts a child process between fork and exec: its own session, resource limits, user and privileges.

Linux only; runs on Python 3.9 and newer.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import struct

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2
_LIBC = ctypes.CDLL(None, use_errno=True)

Rlimits = dict[int, tuple[int, int]]


RLIMIT_MSGQUEUE = 12  # Python's resource module does not define it
_FIXED_IN_GVISOR = (resource.RLIMIT_NPROC, RLIMIT_MSGQUEUE)
"""Limits that cannot be lowered under gVisor, which has no message queues and limits processes per container."""

UID_BASE = 2_000_000_000
"""Added to the runner's process id, this gives the user id of its programs; see `program_uid`."""


def program_uid() -> int | None:
    """The user id to run programs as: one that no other process has, if this process is root; else None (keep the user)."""
    return UID_BASE + os.getpid() if os.geteuid() == 0 else None


def prctl(option: int, value: int) -> None:
    """prctl(2). Raises `OSError`."""
    if _LIBC.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}, {value})")


def become_subreaper() -> None:
    """Make this process the new parent of descendants whose own parent ends (PR_SET_CHILD_SUBREAPER)."""
    prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent, process `parent`, ends. Raises `OSError`, also if that is too late."""
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise ProcessLookupError(f"process {parent} has ended")


def filter_calls(program: bytes) -> None:
    """Have the kernel refuse system calls of this process by `program` of `sandbox.seccomp`; empty: none. The process can gain no
    new privileges. Raises `OSError`."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1)
    if not program:
        return
    instructions = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HP", len(program) // 8, ctypes.addressof(instructions))
    pointer = ctypes.c_char_p(header)
    failed = _LIBC.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, pointer, 0, 0) != 0
    if failed and ctypes.get_errno() != errno.EINVAL:  # a kernel without such filters
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_SECCOMP)")


def confine(rlimits: Rlimits, uid: int | None, parent: int, calls: bytes = b"") -> None:
    """Restrict the calling process irrevocably: set `rlimits`, `uid` as its user and only group (None: keep the user), and the
    filter `calls` (see `filter_calls`).

    The process also
    - starts a new session, because within a session a process may join any process group, and the kernel sends SIGHUP to every
      process of an orphaned group with a stopped member;
    - is killed when process `parent` ends;
    - becomes the first process that the kernel kills when memory runs out;
    - can gain no new privileges.

    Raises `OSError`, `ValueError`.
    """
    os.setsid()
    adjusted = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
    os.write(adjusted, b"1000")
    os.close(adjusted)
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    die_with_parent(parent)  # after the change of user, which clears this setting
    filter_calls(calls)
    for which, (soft, hard) in rlimits.items():
        limit = resource.getrlimit(which)[1]
        if limit != resource.RLIM_INFINITY:  # keep a limit that is already lower
            soft, hard = min(soft, limit), min(hard, limit)
        try:
            resource.setrlimit(which, (soft, hard))
        except ValueError:
            if which not in _FIXED_IN_GVISOR:
                raise
