"""Tests of the filter on system calls (`sandbox.seccomp`) and of the kernel's limits on a program."""

import errno
import os
import resource
import struct

import pytest

from sandbox import seccomp
from sandbox.client import Sandbox
from sandbox.launch import rlimits
from sandbox.verdicts import Limits, Program, Result, Verdict
from tests.needs import need_tools

X86, ARM = 0xC000003E, 0xC00000B7
ALLOWED = 0x7FFF0000
REFUSED, NO_FAMILY = 0x00050000 | errno.ENOSYS, 0x00050000 | errno.EAFNOSUPPORT


def judge(sandbox: Sandbox, source: str, language: str = "py") -> Result:
    (result,) = sandbox.run([Program("x", language, source, limits=Limits(cpu_seconds=5))])
    return result


def decision(program: bytes, architecture: int, number: int, argument: int = 0) -> int:
    """What a filter returns for a system call, as the kernel runs it: classic BPF on `struct seccomp_data`."""
    data = struct.pack("<IIQQ", number, architecture, 0, argument)
    at = value = 0
    while True:
        what, if_true, if_false, operand = struct.unpack_from("<HBBI", program, 8 * at)
        at += 1
        if what == 0x06:
            return operand
        if what == 0x20:
            (value,) = struct.unpack_from("<I", data, operand)
        else:
            true = {0x15: value == operand, 0x35: value >= operand, 0x45: value & operand != 0}[what]
            at += if_true if true else if_false


@pytest.mark.parametrize(
    ("machine", "architecture", "number", "argument", "expected"),
    [
        ("x86_64", X86, 0, 0, ALLOWED),  # read
        ("x86_64", X86, 101, 0, ALLOWED),  # ptrace
        ("x86_64", X86, 56, 17, ALLOWED),  # clone: SIGCHLD, as fork does
        ("x86_64", X86, 56, 0x3D0F00, ALLOWED),  # clone of a thread
        ("x86_64", X86, 56, 0x10000000 | 17, REFUSED),  # clone: CLONE_NEWUSER
        ("x86_64", X86, 56, 0x8000 | 17, REFUSED),  # clone: CLONE_PARENT
        ("x86_64", X86, 435, 0, REFUSED),  # clone3
        ("x86_64", X86, 41, 1, ALLOWED),  # socket: AF_UNIX
        ("x86_64", X86, 41, 2, ALLOWED),  # socket: AF_INET
        ("x86_64", X86, 41, 40, NO_FAMILY),  # socket: AF_VSOCK
        ("x86_64", X86, 53, 40, NO_FAMILY),  # socketpair: AF_VSOCK
        ("x86_64", X86, 29, 0, REFUSED),  # shmget
        ("x86_64", X86, 165, 0, REFUSED),  # mount
        ("x86_64", X86, 319, 0, ALLOWED),  # memfd_create
        ("x86_64", X86, 0x40000000, 0, REFUSED),  # read, x32
        ("x86_64", 0x40000003, 3, 0, REFUSED),  # read, i386
        ("aarch64", ARM, 40, 0, REFUSED),  # mount
        ("aarch64", ARM, 165, 0, ALLOWED),  # getrusage
        ("aarch64", ARM, 220, 0x8000 | 17, REFUSED),  # clone: CLONE_PARENT
        ("aarch64", ARM, 198, 40, NO_FAMILY),  # socket: AF_VSOCK
    ],
)
def test_decisions(machine: str, architecture: int, number: int, argument: int, expected: int) -> None:
    assert decision(seccomp.program(True, machine), architecture, number, argument) == expected


@pytest.mark.parametrize(
    ("machine", "architecture", "allowed"), [("x86_64", X86, {41, 53}), ("aarch64", ARM, {198, 199})]
)
def test_only_the_calls_of_the_table_are_refused(machine: str, architecture: int, allowed: set[int]) -> None:
    program = seccomp.program(True, machine)
    refused = {number for number in range(600) if decision(program, architecture, number, 1) == REFUSED}
    assert refused == {numbers[machine == "aarch64"] for numbers in seccomp._REFUSED.values()}
    assert all(decision(program, architecture, number, 1) == ALLOWED for number in allowed)


def test_memfd_is_refused_where_nothing_counts_it() -> None:
    assert decision(seccomp.program(False, "x86_64"), X86, 319) == REFUSED
    assert decision(seccomp.program(False, "aarch64"), ARM, 279) == REFUSED


def test_an_unknown_machine_has_no_filter() -> None:
    assert seccomp.program(True, "vax") == b""


def test_no_socket_reaches_the_host(sandbox: Sandbox) -> None:
    result = judge(sandbox, "import socket\nsocket.socket(40, socket.SOCK_STREAM)")
    assert result.stderr.splitlines()[-1] == "OSError: [Errno 97] Address family not supported by protocol"


def test_there_is_no_system_v_memory(sandbox: Sandbox) -> None:
    for name, arguments in (("shmget", "0, 4096"), ("semget", "0, 1"), ("msgget", "0")):
        source = f"import ctypes\nprint(ctypes.CDLL(None, use_errno=True).{name}({arguments}, 0o1600), ctypes.get_errno())"
        assert judge(sandbox, source).stdout == f"-1 {errno.ENOSYS}\n"


def test_threads_and_processes_still_work(sandbox: Sandbox) -> None:
    source = """
import multiprocessing.pool, multiprocessing.shared_memory, os, socket, subprocess
print(multiprocessing.pool.ThreadPool(4).map(abs, [-1, -2]))
with multiprocessing.Pool(2) as pool: print(pool.map(abs, [-3, -4]))
print(subprocess.run(['echo', 'said'], capture_output=True, text=True).stdout.strip())
one, other = socket.socketpair()
one.send(b'sent')
print(other.recv(9).decode(), socket.socket().family.name)
"""
    result = judge(sandbox, source)
    assert result.stdout.splitlines() == ["[1, 2]", "[3, 4]", "said", "sent AF_INET"], result.stderr


def test_a_shell_runs_pipes_and_substitutions(sandbox: Sandbox) -> None:
    assert judge(sandbox, "echo $(echo a | tr a b) & wait", "sh").stdout == "b\n"


def test_a_compiled_program_is_filtered_too(sandbox: Sandbox) -> None:
    if sandbox.backend != "docker":
        need_tools("g++")
    source = """
#include <cstdio>
#include <sys/socket.h>
#include <thread>
int main() {
    std::thread([] { puts("a thread"); }).join();
    printf("%d %d\\n", socket(40, SOCK_STREAM, 0), socket(AF_UNIX, SOCK_STREAM, 0) >= 0);
}
"""
    assert judge(sandbox, source, "cpp").stdout == "a thread\n-1 1\n"


def test_no_handler_of_core_dumps_is_started(sandbox: Sandbox) -> None:
    """The kernel starts the program that core_pattern names even with limit 0, but not with 1 (core(5))."""
    limits = rlimits(Limits(), 1, address_space=False, processes=False)
    assert limits[resource.RLIMIT_CORE] == (1, 1)
    result = judge(sandbox, "import resource\nprint(resource.getrlimit(resource.RLIMIT_CORE))")
    assert result.stdout in ("(1, 1)\n", "(0, 0)\n"), "a limit that was 0 before cannot be raised"
    if resource.getrlimit(resource.RLIMIT_CORE)[1] != 0 and sandbox.backend != "docker":
        assert result.stdout == "(1, 1)\n"
    assert judge(sandbox, "import os\nos.abort()").verdict is Verdict.runtime_error


def test_the_filter_stays_for_a_program_that_starts_another(sandbox: Sandbox) -> None:
    source = "import os, sys\nos.execv(sys.executable, ['python3', '-c', 'import socket; socket.socket(40)'])"
    assert judge(sandbox, source).exit_code == 1
    status = judge(
        sandbox, "print([line.split()[1] for line in open('/proc/self/status') if line[:8] == 'Seccomp:'])"
    )
    if seccomp.program(True, os.uname().machine):
        assert status.stdout == "['2']\n"
