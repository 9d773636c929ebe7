"""A table of hostile programs, for `python -m sandbox check`.

A hostile program exits with code 0 only if its attack succeeded, so the verdict `passed` means that the sandbox failed to contain
it. A program with `may_pass` may exit with code 0 in any case. Then only the verdict on `PROBE` counts, a program that runs next
and fails if it finds anything left behind.
"""

from dataclasses import dataclass, field, replace

from sandbox.programs import assemble
from sandbox.verdicts import MIB, Limits, Program, Verdict

NAP = "86399.75"
"""Processes that hostile programs leave behind sleep for this many seconds; `PROBE` finds them by this number."""

# Limits for most hostile programs.
TIGHT = Limits(cpu_seconds=2, wall_seconds=6, memory_bytes=300 * MIB, output_bytes=MIB, processes=64)

SHORT = replace(TIGHT, cpu_seconds=1, wall_seconds=2)
"""Limits for programs that usually end with a timeout."""
LONG = replace(TIGHT, wall_seconds=30)

PROBE = Program(
    "probe",
    "py",
    f"""
import os
for place in ("/tmp", "/dev/shm"):
    left = [name for name in os.listdir(place) if os.path.join(place, name) != os.getcwd()]
    assert not left, (place, left[:3])
for entry in filter(str.isdigit, os.listdir("/proc")):
    try:
        line = open(f"/proc/{{entry}}/cmdline", "rb").read()
    except OSError:
        continue
    assert {NAP!r}.encode() not in line, line
for table in ("shm", "sem", "msg"):
    assert len(open(f"/proc/sysvipc/{{table}}").readlines()) == 1, table
with open("/tmp/probe", "w") as file:
    file.write("x" * 100_000)
print("alive")
print("end-of-probe")
""",
    end_marker="end-of-probe",
)


@dataclass(frozen=True)
class Hostile:
    """One hostile program. `expected`: the only right verdict, if there is one. `may_pass`: see the module's docstring."""

    name: str
    source: str
    language: str = "py"
    expected: Verdict | None = None
    may_pass: bool = False
    limits: Limits = field(default=TIGHT)
    end_marker: str | None = None

    @property
    def program(self) -> Program:
        return Program(self.name, self.language, self.source, limits=self.limits, end_marker=self.end_marker)

    def contained(self, verdict: Verdict) -> bool:
        """Whether this verdict means that the attack failed."""
        if self.expected is not None:
            return verdict is self.expected
        return verdict.is_label and (self.may_pass or verdict is not Verdict.passed)


def _with_tests(name: str, language: str, prompt: str, completion: str, tests: str) -> Hostile:
    made = assemble(language, prompt, completion, tests)
    return Hostile(name, made.source, language, Verdict.wrong_answer, end_marker=made.end_marker)


# Tries something, the line in place of TRY, with every other process that it can see.
_OTHERS = """
import os
def of_own_box(pid):  # bubblewrap's first process is the box's own: it knows nothing, and the box ends with it
    return open(f'/proc/{pid}/comm').read() == 'bwrap\\n'
others = [int(p) for p in os.listdir('/proc') if p.isdigit() and int(p) != os.getpid() and not of_own_box(p)]
got = 0
for pid in others:
    try:
        TRY
        got += 1
    except (OSError, ValueError, AssertionError):
        continue
raise SystemExit(not got)
"""
_PTRACE = """
import ctypes, os
ptrace = ctypes.CDLL(None).ptrace
"""
_SIBLING = """
import ctypes, os
def sibling():  # CLONE_PARENT | SIGCHLD
    return ctypes.CDLL(None).syscall(56 if os.uname().machine == 'x86_64' else 220, 0x8000 | 17, 0, 0, 0, 0)
"""
_TRACED = f"""{_PTRACE}
prctl = ctypes.CDLL(None).prctl
prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE
prctl(0x59616D61, -1, 0, 0, 0)  # PR_SET_PTRACER: any
ready, told = os.pipe()
if os.fork() == 0:
    ptrace(0x4206, os.getppid(), 0, 0)  # PTRACE_SEIZE
    os.close(told)
    os.close(ready)
    os.execvp('sleep', ['sleep', '{NAP}'])
os.close(told)
os.read(ready, 1)
os._exit(0)
"""
_TRACED_COMPILED = f"""
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <unistd.h>
int main() {{
    int ends[2];
    char byte;
    prctl(0x59616D61, -1, 0, 0, 0);
    if (pipe(ends)) return 1;
    if (!fork()) {{
        ptrace(PTRACE_SEIZE, getppid(), 0, 0);
        close(ends[0]), close(ends[1]);
        execlp("sleep", "sleep", "{NAP}", nullptr);
    }}
    close(ends[1]);
    return read(ends[0], &byte, 1) != 0;
}}
"""
_THREAD_TRACED = """
#include <sys/ptrace.h>
#include <thread>
#include <unistd.h>
int main() {
    std::thread traced([] { ptrace(PTRACE_TRACEME, 0, 0, 0); sleep(60); });
    usleep(200'000);
    _exit(0);
}
"""
_FILL = """
import os
done = 0
try:
    for number in range(10_000):
        with open(f'PLACE/fill-{number}', 'wb') as file:
            for _ in range(16):
                done += file.write(bytes(1 << 20))
except OSError:
    raise SystemExit(1)
"""
_MEMFD = """
import os
for _ in range(20):
    file = os.memfd_create('x')
    for _ in range(50): os.write(file, bytes(1 << 20))
"""
_SHARED_UNMAPPED = """
import mmap, os, time
for _ in range(3): os.fork()
kept = [mmap.mmap(-1, 30 << 20) for _ in range(4)]
for one in kept:
    one.write(bytes(30 << 20))
    one.madvise(mmap.MADV_DONTNEED)  # it stays allocated, and no page of it is resident
time.sleep(1)
"""
_SYSTEM_V_DETACHED = """
import ctypes
libc = ctypes.CDLL(None)
libc.shmat.restype = ctypes.c_void_p
for _ in range(20):
    segment = libc.shmget(0, 50 << 20, 0o1600)
    if segment < 0:
        raise SystemExit(1)
    place = ctypes.c_void_p(libc.shmat(segment, None, 0))
    ctypes.memset(place, 1, 50 << 20)
    libc.shmdt(place)
"""
_FILES_IN_MEMORY = """
for place in ('/tmp', '/dev/shm'):
    for number in range(4):
        with open(f'{place}/{number}', 'wb') as file: file.write(bytes(50 << 20))
import time
time.sleep(1)
"""
_CHILDREN = """
import os, signal, time
def child():
    end = time.process_time() + 0.1
    while time.process_time() < end: pass
    os._exit(0)
for _ in range(60):
    START
    time.sleep(0.1)
"""
_CALLS = """
import ctypes, os
x86 = os.uname().machine == 'x86_64'
libc = ctypes.CDLL(None)
calls = {  # by name: number, arguments
    'io_uring_setup': (425, 8, ctypes.create_string_buffer(120)),
    'userfaultfd': (323 if x86 else 282, 1),
    'perf_event_open': (298 if x86 else 241, ctypes.create_string_buffer(b'\\1\\0\\0\\0\\x70', 112), 0, -1, -1, 0),
    'bpf': (321 if x86 else 280, 0, ctypes.create_string_buffer(72), 72),
    'keyctl': (250 if x86 else 219, 0, -3, 1),
    'unshare': (272 if x86 else 97, 0),
}
raise SystemExit(not [name for name, call in calls.items() if libc.syscall(*call) >= 0])
"""
_DAEMON = f"""
import os
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        CLOSE
        os.execvp('sleep', ['sleep', '{NAP}'])
    os._exit(0)
os.wait()
"""
_ANY_OF = """
import socket
def attempt(action):
    try:
        action()
        return True
    except OSError:
        return False
raise SystemExit(not any(map(attempt, [ACTIONS])))
"""
_FORGED = '{"answer": {"id": "x", "verdict": "passed", "exit_code": 0}}'
_LAUGHS = (
    "#define A0 1+1+1+1+1+1+1+1+1+1\n"
    + "".join(f"#define A{n} {'+'.join([f'A{n - 1}'] * 10)}\n" for n in range(1, 9))
    + "int main() { return A8; }\n"
)
_PARENTHESES = "class A { int x = " + "(" * 20_000 + "1; }"
_TYPES = (
    "type Count<N extends number, T extends any[] = []> = T['length'] extends N ? T : Count<N, [...T, any]>;\n"
    + "".join(f"type B{n} = [...B{n - 1}, ...B{n - 1}];\n" if n else "type B0 = [1, 2];\n" for n in range(30))
    + "const b: B29 = null as any;\nconst c: Count<9999> = b;\n"
)


def _sockets(*actions: str) -> str:
    return _ANY_OF.replace("ACTIONS", ", ".join(f"lambda: socket.{action}" for action in actions))


_SOCKETS = ("/var/run/docker.sock", "/run/systemd/private", "/run/dbus/system_bus_socket", "\0x")
_OWN_OUTPUT = """
import contextlib, fcntl, os
back = os.open("/dev/stdout", os.O_RDONLY | os.O_NONBLOCK)
os.fchmod(1, 0)
fcntl.fcntl(1, fcntl.F_SETPIPE_SZ, 4096)
for _ in range(20_000):
    os.write(1, b"x" * 1000)
    with contextlib.suppress(BlockingIOError):
        os.read(back, 1000)
"""
_OWN_INPUT = """
import fcntl, os, select
more = os.open("/dev/stdin", os.O_WRONLY | os.O_NONBLOCK)
for _ in range(20_000):
    if select.select([], [more], [], 0)[1]:
        os.write(more, b"x" * 4096)
    os.read(0, 4096)
while select.select([], [more], [], 0)[1]:
    os.write(more, b"x")
"""
_NEARLY_FAILED = """
#include <cstdio>
int main() {
    for (int i = 0; i < 90000; ++i) fputs("Assertion `", stderr);  // to look for its end from each takes minutes
    return 3;
}
"""
_HOLDS_PIPES = f"""
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        ends = [os.open(f"/dev/fd/{{fd}}", os.O_RDWR) for fd in range(3)]
        os.closerange(0, 3)
        time.sleep({NAP})
    os._exit(0)
os.wait()
"""
_CLOSED_OUTPUT = """
import os, time
back = os.open("/dev/stdout", os.O_RDONLY)
os.close(1)  # which looks like its end
time.sleep(0.2)
out = os.open(f"/proc/self/fd/{back}", os.O_WRONLY)
os.write(out, b"x" * 10_000)
"""

HOSTILE = (
    # Exceeding the limits
    Hostile("fork bomb", "import os\nwhile True: os.fork()"),
    Hostile("fork bomb in a shell", ":(){ :|:& };:\nsleep 20\nexit 0", "sh"),
    Hostile("memory bomb", "x = []\nwhile True: x.append(bytearray(1 << 20))", "py", Verdict.memory_exceeded),
    Hostile(
        "memory bomb over processes",
        "import os, time\nfor _ in range(3): os.fork()\nx = bytearray(os.urandom(1 << 20)) * 100\ntime.sleep(5)",
        "py",
        Verdict.memory_exceeded,
    ),
    Hostile("memory in memfd", _MEMFD),
    Hostile("shared memory that is not resident", _SHARED_UNMAPPED),
    Hostile("detached shared memory of System V", _SYSTEM_V_DETACHED),
    Hostile("files in memory", _FILES_IN_MEMORY, limits=replace(TIGHT, file_bytes=250 * MIB)),
    Hostile(
        "children that nobody waits for",
        _CHILDREN.replace("START", "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n    os.fork() or child()"),
        "py",
        Verdict.timeout,
        limits=LONG,
    ),
    Hostile(
        "grandchildren that nobody waits for",
        _CHILDREN.replace(
            "START", "if os.fork() == 0:\n        os.fork() or child()\n        os._exit(0)\n    os.wait()"
        ),
        "py",
        Verdict.timeout,
        limits=LONG,
    ),
    Hostile(
        "siblings that nobody waits for",
        _CHILDREN.replace(
            "START", "made = sibling()\n    made or child()\n    if made < 0: raise SystemExit(1)"
        ).replace("import os", f"{_SIBLING}import os", 1),
        limits=LONG,
    ),
    Hostile("endless output", "while True: print('x' * 4096)", "py", Verdict.output_exceeded),
    Hostile("output that it takes back", _OWN_OUTPUT, may_pass=True),
    Hostile("input of its own making", _OWN_INPUT, may_pass=True),
    Hostile("pipes that it holds open", _HOLDS_PIPES, may_pass=True),
    Hostile("output after its end", _CLOSED_OUTPUT, may_pass=True),
    Hostile("lines that say nearly what a failed test does", _NEARLY_FAILED, "cpp", Verdict.runtime_error),
    Hostile("endless output on stderr", "while :; do echo xxxxxxxxxxxxxxxxxxxxxxxx >&2; done", "sh"),
    Hostile("sleep", "import time\ntime.sleep(3600)", "py", Verdict.timeout),
    Hostile("busy loop", "while True: pass", "py", Verdict.timeout),
    Hostile(
        "busy loop that ignores signals",
        "import signal\nfor n in range(1, 65):\n    try: signal.signal(n, signal.SIG_IGN)\n    except (OSError, ValueError): pass\n"
        "while True: pass",
        "py",
        Verdict.timeout,
    ),
    Hostile(
        "stops itself",
        "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)\nos._exit(0)",
        "py",
        Verdict.timeout,
    ),
    Hostile(
        "busy threads", "import os\nfor _ in range(5): os.fork()\nwhile True: pass", "py", Verdict.timeout
    ),
    Hostile("fills /tmp", _FILL.replace("PLACE", "/tmp")),
    Hostile("fills /dev/shm", _FILL.replace("PLACE", "/dev/shm")),
    Hostile("fills its own directory", _FILL.replace("PLACE", ".")),
    Hostile(
        "fills the inodes",
        "import os\ntry:\n    for n in range(3_000_000): os.mknod(f'/tmp/{n}')\nexcept OSError:\n    raise SystemExit(1)",
    ),
    Hostile("raises its limits", "import resource as r\nr.setrlimit(r.RLIMIT_CPU, (9999, 9999))"),
    Hostile(
        "will not be killed for memory",
        "with open('/proc/self/oom_score_adj', 'w') as file: file.write('-1000')",
    ),
    # Leaving something behind
    Hostile("daemon", _DAEMON.replace("CLOSE", "[os.close(n) for n in range(3)]"), may_pass=True),
    Hostile("daemon that holds the pipes", _DAEMON.replace("CLOSE", "pass"), "py", Verdict.passed),
    Hostile("daemon of a shell", f"setsid sleep {NAP} &\ndisown -a", "sh", Verdict.passed),
    Hostile(
        "shared memory of System V",
        "import ctypes\nctypes.CDLL(None).shmget(4711, 4096, 0o1666)",
        may_pass=True,
    ),
    Hostile(
        "message queue", "import ctypes\nctypes.CDLL(None).mq_open(b'/q', 0o102, 0o666, None)", may_pass=True
    ),
    Hostile(
        "files with strange names",
        "import os\nfor name in ('-rf', 'a\\nb', '*', '$(touch x)', '\\u202e', 'x' * 255, ' '):\n    open(f'/tmp/{name}', 'w')\n"
        "open(b'/tmp/\\xff\\xfe', 'w')",
        may_pass=True,
    ),
    Hostile(
        "directories too deep, and closed",
        "import os\nos.mkdir('/tmp/closed', 0)\nos.chdir('/tmp')\nfor _ in range(1500):\n    os.mkdir('d')\n    os.chdir('d')",
        may_pass=True,
    ),
    Hostile(
        "links out of its directory",
        "import os\nos.symlink('/', '/tmp/root')\nos.symlink('/etc', '/dev/shm/etc')\nos.symlink('/tmp', '/tmp/loop')",
        may_pass=True,
    ),
    # Attacking other processes
    Hostile("kill(-1)", "import os\nos.kill(-1, 9)", may_pass=True),
    *(
        Hostile(name, _OTHERS.replace("TRY", attack))
        for name, attack in {
            "kills its parent": "assert pid == os.getppid(); os.kill(pid, 9)",
            "signals to everybody": "os.kill(pid, 15)",
            "stops everybody": "os.kill(pid, 19)",
            "reads others' environment": "assert open(f'/proc/{pid}/environ', 'rb').read() or 1",
            "reads others' memory": "open(f'/proc/{pid}/mem', 'rb')",
            "reads others' files": "os.listdir(f'/proc/{pid}/fd')",
            "traces others": "import ctypes; assert ctypes.CDLL(None).ptrace(16, pid, 0, 0) == 0 or int('x')",
        }.items()
    ),
    # Preventing its own end, or hiding it from the process that waits for it
    Hostile("has itself traced and stops", f"{_PTRACE}ptrace(0, 0)\nos.kill(os.getpid(), 19)", limits=SHORT),
    Hostile("is traced at its end", _TRACED, may_pass=True, limits=SHORT),
    Hostile(
        "has a thread traced at its end",
        f"{_PTRACE}import threading, time\nthreading.Thread(target=lambda: (ptrace(0, 0), time.sleep(60))).start()\n"
        "time.sleep(0.2)\nos._exit(0)",
        may_pass=True,
        limits=SHORT,
    ),
    Hostile("is traced at its end, compiled", _TRACED_COMPILED, "cpp", may_pass=True, limits=SHORT),
    Hostile("has a thread traced at its end, compiled", _THREAD_TRACED, "cpp", may_pass=True, limits=SHORT),
    Hostile(
        "leaves a sibling",
        f"{_SIBLING}if sibling() == 0:\n    os.execvp('sleep', ['sleep', {NAP!r}])",
        may_pass=True,
    ),
    Hostile("leaves a sibling that has ended", f"{_SIBLING}sibling() or os._exit(0)", may_pass=True),
    Hostile(
        "looks for other programs",
        "import os, glob\nraise SystemExit(not [p for p in glob.glob('/sandbox/*/*/main.*')])",
    ),
    # Attacking the machine
    Hostile(
        "writes to /proc/sys", "with open('/proc/sys/kernel/core_pattern', 'w') as file: file.write('x')"
    ),
    Hostile("triggers a crash", "with open('/proc/sysrq-trigger', 'w') as file: file.write('h')"),
    Hostile(
        "writes to /sys",
        "import glob\nfor path in glob.glob('/sys/fs/cgroup/**/*limit*', recursive=True) + ['/sys/power/state']:\n"
        "    with open(path, 'w') as file: file.write('1')",
    ),
    Hostile("makes a device", "import os\nos.mknod('/tmp/sda', 0o60666, os.makedev(8, 0))"),
    Hostile(
        "mounts",
        "import ctypes\nraise SystemExit(ctypes.CDLL(None).mount(b'x', b'/tmp', b'tmpfs', 0, None) != 0)",
    ),
    Hostile("a user namespace", "unshare --user --map-root-user true", "sh"),
    Hostile("becomes root", "import os\nos.setuid(0)"),
    Hostile(
        "setuid programs",
        "found=$(find / -xdev -type f -perm /6000 2>/dev/null | head -1)\n[ -n \"$found\" ] && grep -q 'NoNewPrivs:.0' /proc/self/status",
        "sh",
    ),
    Hostile(
        "writes to the system",
        "for place in ('/usr/x', '/etc/x', '/bin/x', '/x', '/opt/x'): open(place, 'w')",
    ),
    Hostile("calls of the kernel that it does not need", _CALLS),
    # Using the network
    Hostile(
        "sockets to the host of a virtual machine",
        _sockets("socket(40, socket.SOCK_STREAM)", "socketpair(40, socket.SOCK_STREAM)"),
    ),
    Hostile("sockets of the kernel's cryptography", _sockets("socket(38, socket.SOCK_SEQPACKET)")),
    Hostile(
        "IPv4", _sockets("create_connection(('1.1.1.1', 80), 2)", "create_connection(('127.0.0.1', 22), 2)")
    ),
    Hostile("IPv6", _sockets("create_connection(('2606:4700:4700::1111', 80), 2)")),
    Hostile("DNS", _sockets("getaddrinfo('example.org', 80)")),
    Hostile(
        "sockets of the machine",
        _sockets(*(f"socket(socket.AF_UNIX).connect({path!r})" for path in _SOCKETS)),
    ),
    # Forging the verdict
    Hostile(
        "forges a verdict on stdout", f"print({_FORGED!r})\nraise SystemExit(1)", "py", Verdict.runtime_error
    ),
    Hostile("forges a verdict on stderr", f"echo '{_FORGED}' >&2\nexit 3", "sh", Verdict.runtime_error),
    Hostile(
        "forges a verdict on all descriptors",
        f"import os\nfor fd in range(3, 256):\n    try: os.write(fd, {_FORGED.encode()!r} + b'\\n')\n    except OSError: pass\n"
        "raise SystemExit(1)",
        "py",
        Verdict.runtime_error,
    ),
    _with_tests(
        "exits before the tests", "py", "def f(n):\n", "    import os; os._exit(0)", "assert f(1) == 2"
    ),
    _with_tests(
        "exits while it is defined", "py", "def f(n):\n", "    return 1\nraise SystemExit", "assert f(1) == 2"
    ),
    _with_tests(
        "exit code 256", "sh", "#!/bin/bash\nf() {\n", "    :\n}\nexit 256\ng() {\n", "}\nset -e\nf\n"
    ),
    # Attacking the compilers
    Hostile("billion laughs", _LAUGHS, "cpp", limits=Limits(compile_cpu_seconds=4, compile_wall_seconds=20)),
    Hostile(
        "types without end", _TYPES, "ts", limits=Limits(compile_cpu_seconds=10, compile_wall_seconds=30)
    ),
    Hostile("parentheses for javac", _PARENTHESES, "java", Verdict.compile_error),
    Hostile("parentheses for mcs", _PARENTHESES, "cs", Verdict.compile_error),
    Hostile("parentheses for tsc", "let x = " + "(" * 20_000 + "1;", "ts", Verdict.compile_error),
    Hostile(
        "source that includes others' files",
        '#include "/etc/shadow"\nint main() { return 0; }',
        "cpp",
        Verdict.compile_error,
    ),
    Hostile(
        "source that holds others' files",
        '__asm__(".incbin \\"/etc/shadow\\"");\nint main() { return 0; }',
        "cpp",
        Verdict.compile_error,
    ),
    Hostile("a line of 10 MB", "x = '" + "x" * 10_000_000 + "'\nraise SystemExit(1)", limits=Limits()),
    Hostile(
        "a line of 10 MB for a compiler",
        "// " + "x" * 10_000_000 + "\nint main() { return 1; }",
        "cpp",
        limits=Limits(),
    ),
    Hostile("not UTF-8", "print('\udcff\ud800')\nraise SystemExit(1)"),
    Hostile("nothing but zeros", "\0" * 1000 + "\nraise SystemExit(1)"),
)
