"""A filter on system calls (seccomp(2)) for programs, for all backends; Docker adds its own.

It refuses calls that programs that solve problems do not need and that reach far into the kernel, or get around a limit: memory
that the sandbox cannot count, processes that it would wait for in vain, ways to the host. A refused call fails as on a kernel
without it, so that runtimes use something else.
"""

import errno
import os
import socket
import struct

_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_LOAD, _IS, _AT_LEAST, _HAS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # BPF instructions on 32-bit words
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in `struct seccomp_data`
_X32 = 0x40000000  # added to the number of a call of x86's x32 interface
_NEW_NAMESPACES = 0x7E020000  # flags CLONE_NEW* of clone(2)
_CLONE_PARENT = 0x8000
_FAMILIES = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)
"""Address families that programs may use. AF_VSOCK, for example, would reach a virtual machine's host without any network."""

# By machine (`uname -m`): the architecture (AUDIT_ARCH_*), and the numbers of clone, socket, socketpair.
_MACHINES = {"x86_64": (0xC000003E, 56, (41, 53)), "aarch64": (0xC00000B7, 220, (198, 199))}
# Refused calls: their numbers on x86_64 and aarch64.
_REFUSED = {
    # System V's shared memory, semaphores and queues outlive the program, and memory there need not be mapped.
    "shmget": (29, 194), "semget": (64, 190), "msgget": (68, 186), "memfd_secret": (447, 447),
    # clone3 passes its flags in memory, where no filter sees them; libc then uses clone.
    "clone3": (435, 435), "unshare": (272, 97), "setns": (308, 268),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "open_tree": (428, 428), "move_mount": (429, 429),
    "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "kcmp": (312, 272), "vmsplice": (278, 75),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "open_by_handle_at": (304, 265), "fanotify_init": (300, 262), "quotactl": (179, 60), "quotactl_fd": (443, 443),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142), "acct": (163, 89), "syslog": (103, 116),
    "swapon": (167, 224), "swapoff": (168, 225), "settimeofday": (164, 170), "clock_settime": (227, 112),
}  # fmt: skip
_MEMFD = (319, 279)
_GROUP = 7


def program(memfd: bool, machine: str = os.uname().machine) -> bytes:
    """The filter as BPF instructions (`struct sock_filter`); empty for a machine whose calls are not known here.

    `memfd`: whether memfd_create is allowed. It is where a control group counts such memory.
    """
    if machine not in _MACHINES:
        return b""
    column = list(_MACHINES).index(machine)
    architecture, clone, sockets = _MACHINES[machine]
    refuse = _RETURN, 0, 0, _ERRNO | errno.ENOSYS
    allow = _RETURN, 0, 0, _ALLOW
    # An instruction is (what, how many to skip if true, if false, value).
    steps = [(_LOAD, 0, 0, _ARCHITECTURE), (_IS, 1, 0, architecture), refuse, (_LOAD, 0, 0, _NUMBER)]
    steps += [(_AT_LEAST, 0, 1, _X32), refuse]
    steps += [(_IS, 0, 4, clone), (_LOAD, 0, 0, _FIRST_ARGUMENT)]
    steps += [(_HAS, 0, 1, _NEW_NAMESPACES | _CLONE_PARENT), refuse, allow]
    for number in sockets:
        steps += [(_IS, 0, 2 * len(_FAMILIES) + 2, number), (_LOAD, 0, 0, _FIRST_ARGUMENT)]
        for family in _FAMILIES:
            steps += [(_IS, 0, 1, int(family)), allow]
        steps.append((_RETURN, 0, 0, _ERRNO | errno.EAFNOSUPPORT))
    refused = sorted(numbers[column] for numbers in [*_REFUSED.values(), *([] if memfd else [_MEMFD])])
    # In groups, because the kernel asks the filter about each of its calls when it gets it, which costs time for each program.
    for at in range(0, len(refused), _GROUP):
        group = refused[at : at + _GROUP]
        asked = [step for number in group for step in ((_IS, 0, 1, number), refuse)]
        steps += [(_AT_LEAST, len(asked) + 1, 0, group[-1] + 1), *asked, allow]
    return b"".join(struct.pack("HBBI", *step) for step in [*steps, allow])
