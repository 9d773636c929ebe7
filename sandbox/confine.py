"""What a child process does to itself between fork and exec. Linux only; any Python from 3.9 on."""

from __future__ import annotations

import ctypes
import os
import resource
import signal

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_LIBC = ctypes.CDLL(None, use_errno=True)

Rlimits = dict[int, tuple[int, int]]


RLIMIT_MSGQUEUE = 12  # the resource module lacks it
_FIXED_IN_GVISOR = (resource.RLIMIT_NPROC, RLIMIT_MSGQUEUE)
"""Limits that cannot be lowered under gVisor. It has no message queues, and limits processes per container."""

UID_BASE = 2_000_000_000


def program_uid() -> int | None:
    """A user id that no other process has, to run programs as, if this process is root; else None (keep the user)."""
    return UID_BASE + os.getpid() if os.geteuid() == 0 else None


def prctl(option: int, value: int) -> None:
    """prctl(2). Raises `OSError`."""
    if _LIBC.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}, {value})")


def become_subreaper() -> None:
    """From now on, descendants whose parent ends become this process's children."""
    prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int) -> None:
    """From now on, this process is killed when `parent`, its parent, ends. Raises `OSError`."""
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise ProcessLookupError(f"process {parent} has ended")


def confine(rlimits: Rlimits, uid: int | None, parent: int) -> None:
    """Irrevocably set `rlimits`, and `uid` as the user and only group (None: keep the user).

    The process starts a new session: within a session any process may join any process group, and the kernel sends SIGHUP to an
    orphaned group with a stopped member, whoever it belongs to. It is killed when `parent` ends, and it is the first that the kernel
    kills when memory runs out. Raises `OSError`, `ValueError`.
    """
    os.setsid()
    adjusted = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
    os.write(adjusted, b"1000")
    os.close(adjusted)
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    die_with_parent(parent)  # after the change of user, which clears it
    prctl(_PR_SET_NO_NEW_PRIVS, 1)
    for which, (soft, hard) in rlimits.items():
        limit = resource.getrlimit(which)[1]
        if limit != resource.RLIM_INFINITY:  # a limit that is already lower stays
            soft, hard = min(soft, limit), min(hard, limit)
        try:
            resource.setrlimit(which, (soft, hard))
        except ValueError:
            if which not in _FIXED_IN_GVISOR:
                raise
