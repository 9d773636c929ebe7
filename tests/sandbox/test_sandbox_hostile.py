"""Tests with hostile programs: each checks one property of limits, isolation, cleaning up, or the verdict."""

import errno
import os
import select
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sandbox.backends import docker
from sandbox.channel import Pipe
from sandbox.client import Sandbox
from sandbox.errors import SandboxError
from sandbox.languages import PATH
from sandbox.launch import _end_of
from sandbox.verdicts import MIB, Case, Limits, Program, Result, Verdict
from tests.needs import need, need_tools

DAEMON = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(SECONDS)
    os._exit(0)
os.wait()
"""
NAP = f"900.{os.getpid()}"
"""Seconds to sleep for, by which these tests know their processes."""
LIMITS = Limits(cpu_seconds=2, wall_seconds=10, memory_bytes=200 * MIB)


def judge(sandbox: Sandbox, source: str, language: str = "py", limits: Limits = LIMITS, **more) -> Result:
    (result,) = sandbox.run([Program("x", language, source, limits=limits, **more)])
    return result


def command_lines() -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue
    return found


def test_a_sleeper_is_over_the_wall_limit(sandbox: Sandbox) -> None:
    result = judge(sandbox, "import time; time.sleep(60)", limits=Limits(wall_seconds=0.5))
    assert result.verdict is Verdict.timeout
    assert result.cpu_seconds < 0.5
    assert result.exit_code is None


def test_cpu_time_is_counted_over_all_processes(sandbox: Sandbox) -> None:
    four = "import os\nfor _ in range(4): os.fork()\nwhile True: pass"
    result = judge(sandbox, four, limits=Limits(cpu_seconds=0.8, wall_seconds=20, memory_bytes=1000 * MIB))
    assert result.verdict is Verdict.timeout
    assert result.run_seconds < 10


def test_a_cpu_time_signal_of_the_kernel_is_a_timeout() -> None:
    """The kernel's count of CPU time is coarse, so on a busy machine its signal may come before the watcher's own limit."""
    probe = """
import resource
from pathlib import Path
from sandbox.launch import Command, Spawned
from sandbox.watch import Budget, watch
busy = Command(("bash", "-c", "while :; do :; done"), Path("/"), {}, {resource.RLIMIT_CPU: (1, 2)})
print(watch(lambda stdio: Spawned(busy, stdio), b"", Budget(1.1, 30, 1 << 30, 1 << 20, 16)).over)
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", probe], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "timeout\n"


def test_output_that_is_read_late_is_not_lost() -> None:
    """On a busy machine the runner reads late; if a pipe was full once, node writes nothing more while the program spins."""
    need_tools("node")
    probe = """
from pathlib import Path
from sandbox import watch
from sandbox.launch import Command, Spawned
watch._PAUSE_SECONDS = 0.02
flood = Command(("node", "-e", "while (true) console.log('a line of some length')"), Path("/"), {"PATH": "/usr/bin"}, {})
print(watch.watch(lambda stdio: Spawned(flood, stdio), b"", watch.Budget(5, 60, 1 << 30, 1 << 20, 64)).over)
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", probe], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "output_exceeded\n"


def test_a_cpu_time_signal_of_its_own_is_none(sandbox: Sandbox) -> None:
    result = judge(sandbox, "import os, signal\nos.kill(os.getpid(), signal.SIGXCPU)")
    assert (result.verdict, result.exit_code) == (Verdict.runtime_error, 152)


def test_memory_is_counted_over_all_processes(sandbox: Sandbox) -> None:
    source = "import os, time\nfor _ in range(3): os.fork()\nx = bytearray(60 << 20)\ntime.sleep(8)"
    result = judge(sandbox, source)
    assert result.verdict is Verdict.memory_exceeded
    assert result.run_seconds < 8


@pytest.mark.parametrize("language", ["py", "sh"])
def test_a_daemon_ends_with_its_program(sandbox: Sandbox, language: str) -> None:
    source = {
        "py": "import os\nif os.fork() == 0:\n  os.setsid()\n  os.execvp('sleep', ['sleep', '" + NAP + "'])",
        "sh": f"setsid sleep {NAP} &\ndisown -a",
    }[language]
    assert judge(sandbox, source, language).verdict is Verdict.passed
    assert not [line for line in command_lines() if NAP in line]


def test_a_daemon_that_holds_the_output_open_is_not_waited_for(sandbox: Sandbox) -> None:
    result = judge(sandbox, DAEMON.replace("SECONDS", "8") + "print('done')")
    assert result.verdict is Verdict.passed
    assert result.stdout == "done\n"
    assert result.run_seconds < 5


@pytest.mark.parametrize(
    ("language", "source"),
    [("py", "import os\nwhile True: os.fork()"), ("sh", ":(){ :|:& };:\nsleep 20")],
)
def test_a_fork_bomb_ends_with_its_program(sandbox: Sandbox, language: str, source: str) -> None:
    limits = Limits(cpu_seconds=5, wall_seconds=10, memory_bytes=2000 * MIB, processes=32)
    result = judge(sandbox, source, language, limits)
    assert result.verdict is Verdict.runtime_error
    assert result.run_seconds < 5
    assert judge(sandbox, "print(1)").verdict is Verdict.passed


def test_a_program_that_reads_nothing_gets_a_long_input(sandbox: Sandbox) -> None:
    assert judge(sandbox, "print(1)", cases=(Case("x" * 4_000_000, "1"),)).verdict is Verdict.passed


def test_a_long_input_arrives_whole_while_output_is_read(sandbox: Sandbox) -> None:
    text = "".join(f"line {number}\n" for number in range(100_000))
    source = "import sys\nfor line in sys.stdin: sys.stdout.write(line)"
    assert judge(sandbox, source, cases=(Case(text, text),)).verdict is Verdict.passed


def test_both_ends_of_a_long_output_are_kept(sandbox: Sandbox) -> None:
    result = judge(sandbox, "print('first'); print('x' * 200_000); print('last')")
    assert result.verdict is Verdict.passed
    assert result.stdout.startswith("first\n")
    assert result.stdout.endswith("last\n")
    assert len(result.stdout) == 64 << 10


@pytest.mark.parametrize("text", [r"b'\xff\xfe\x00'", r"'\u00e9'.encode('latin-1')"])
def test_output_that_is_not_text(sandbox: Sandbox, text: str) -> None:
    result = judge(sandbox, f"import sys; sys.stdout.buffer.write({text})")
    assert result.verdict is Verdict.passed
    assert "\ufffd" in result.stdout


def test_a_source_that_is_not_text(sandbox: Sandbox) -> None:
    assert judge(sandbox, "print('\ud800')").verdict is Verdict.passed


@pytest.mark.parametrize("source", ["", "\0", "(" * 100_000, "x = " + "-" * 200_000 + "1"])
def test_a_source_that_is_nonsense(sandbox: Sandbox, source: str) -> None:
    assert judge(sandbox, source).verdict.is_label


def test_a_signal_is_128_plus_its_number(sandbox: Sandbox) -> None:
    result = judge(sandbox, "import os; os.kill(os.getpid(), 11)")
    assert (result.verdict, result.exit_code) == (Verdict.runtime_error, 139)


def test_closed_output_is_not_passed_as_finished(sandbox: Sandbox) -> None:
    source = "import os\nos.close(1)\nos._exit(0)"
    assert judge(sandbox, source, end_marker="end-1").verdict is Verdict.wrong_answer


def test_the_marker_has_to_be_a_line_of_its_own(sandbox: Sandbox) -> None:
    assert judge(sandbox, "print('x end-1')", end_marker="end-1").verdict is Verdict.wrong_answer
    assert judge(sandbox, "print('x', end='')\nprint('\\nend-1')", end_marker="end-1").stdout == "x"


def test_php_that_declares_what_is_there_is_refused(sandbox: Sandbox) -> None:
    if sandbox.backend != "docker":
        need_tools("php")
    assert judge(sandbox, "<?php\nfunction count($x) { }", "php").verdict is Verdict.compile_error
    assert judge(sandbox, "<?php\nundefined();", "php").verdict is Verdict.runtime_error


def test_php_that_closes_its_tag_does_not_pass(sandbox: Sandbox) -> None:
    """Tests after `?>` are text: they are printed and not run, and the exit code is 0."""
    need_tools("php")
    source = '<?php\nfunction f() { return 1; }\n?>\nif (f() !== 2) { exit(1); }\necho "\\nend-1\\n";\n'
    assert judge(sandbox, source, "php", end_marker="end-1").verdict is Verdict.wrong_answer


def test_a_script_that_ends_too_soon_is_refused(sandbox: Sandbox) -> None:
    assert judge(sandbox, 'echo "a\n', "sh").verdict is Verdict.compile_error


def test_a_syntax_error_at_run_time_is_a_runtime_error(sandbox: Sandbox) -> None:
    assert judge(sandbox, "eval('1 +')").verdict is Verdict.runtime_error


def test_nothing_is_left_on_disk(scratch: Path) -> None:
    """The program leaves directories without permissions, and one nested deeper than Python's recursion limit."""
    source = """
import os
open('file', 'w').write('x')
os.mkdir('closed'); os.mkdir('closed/inner'); os.chmod('closed', 0)
for _ in range(1500):
    os.mkdir('d'); os.chdir('d')
"""
    before = set(scratch.glob("sandbox-*"))
    with Sandbox("process") as sandbox:
        assert judge(sandbox, source).verdict is Verdict.passed
        (own,) = set(scratch.glob("sandbox-*")) - before
        assert list(own.iterdir()) == []
    assert not own.exists()


def test_a_program_sees_a_clean_environment(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    result = judge(
        sandbox, "import os; print(sorted(os.environ)); print(os.getuid(), os.getgid(), os.getgroups())"
    )
    names, ids = result.stdout.splitlines()
    allowed = {"PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "PYTHONHASHSEED", "PYTHONDONTWRITEBYTECODE", "PWD"}
    allowed |= {"OPENBLAS_NUM_THREADS"}  # see docs/sandbox.md, Libraries
    assert set(eval(names)) <= allowed
    assert not (os.getuid() == 0 and ids.startswith("0"))


def test_python_runs_as_a_fresh_interpreter_would(sandbox: Sandbox) -> None:
    source = """
import sys, os
assert __name__ == '__main__' and sys.modules['__main__'].__dict__ is globals()
assert sys.argv == [__file__] and sys.path[0] == os.path.dirname(__file__)
assert not [name for name in sys.modules if name.startswith('sandbox')]
assert 'math' not in globals()
assert sorted(os.listdir('/proc/self/fd')) == ['0', '1', '2', '3']
assert sys.stdin.read() == ''
import atexit, threading, time
atexit.register(print, 'atexit')
threading.Thread(target=lambda: (time.sleep(0.1), print('thread'))).start()
print(hash('x'))
raise KeyError('gone')
"""
    first, second = judge(sandbox, source), judge(sandbox, source + "\n")
    assert first.verdict is Verdict.runtime_error
    assert first.stdout.splitlines()[1:] == ["thread", "atexit"]
    assert first.stdout == second.stdout, "the hash seed has to be the same for all"
    assert first.stderr.startswith("Traceback (most recent call last):\n  File ")
    assert first.stderr.count("File ") == 1
    assert first.stderr.endswith("KeyError: 'gone'\n")


@pytest.mark.parametrize(
    "source",
    [
        "import atexit; atexit.register(print, 'first'); atexit.register(print, 'last')",
        "import atexit; atexit.register(lambda: 1 / 0)",
        "import threading, time\nthreading.Thread(target=lambda: (time.sleep(0.2), print('late'))).start()\nprint('main')",
        "import threading, time\nthreading.Thread(target=time.sleep, args=(9,), daemon=True).start()\nprint('main')",
        "import io, sys\nout = io.TextIOWrapper(sys.stdout.buffer, write_through=False)\nout.write('kept')",
        "import sys\nsys.stdout = open(1, 'w', closefd=False)\nprint('kept')",
        "class A:\n    def __del__(self): print('gone', __name__)\na = A()\n_a = A()\nb = [A()]; b.append(b)",
        "import weakref\nclass A: pass\na = A()\nweakref.finalize(a, print, 'finalized')",
        "import sys; sys.exit(3)",
        "import sys; sys.exit('told')",
        "raise SystemExit",
        "print('x'); 1 / 0",
        "import sys\nsys.excepthook = lambda *a: print('hooked', a[0].__name__)\nraise ValueError",
        "raise KeyboardInterrupt",
        "import os; print('lost', end=''); os._exit(4)",
        "import os\nprint('a', flush=True)\nif os.fork() == 0: print('child')\nelse: os.wait(); print('parent')",
        "globals()[1] = 2; print('fine')",
        "import sys; sys.stdout.close()",
        "import sys; sys.stdout = None",
        "def f(): yield f; print('never')\ng = f(); next(g)",
        "def f():\n    try: yield\n    finally: print('closed')\ng = f(); next(g)",
        "syntax error",
    ],
)
def test_python_ends_as_a_fresh_interpreter_does(source: str, tmp_path: Path) -> None:
    """Exit code and output of the warm interpreter's children, which may skip finalization, equal those of a fresh interpreter."""
    file = tmp_path / "main.py"
    file.write_text(source)
    python = shutil.which("python3", path=PATH)
    need(python is not None, f"no python3 on {PATH}")
    fresh = subprocess.run([python, file], capture_output=True, text=True, env={"PATH": PATH}, check=False)
    with Sandbox("process") as sandbox:
        result = judge(sandbox, source)
    assert result.exit_code == (fresh.returncode if fresh.returncode >= 0 else 128 - fresh.returncode)
    assert result.stdout == fresh.stdout
    assert result.stderr.splitlines()[-1:] == fresh.stderr.splitlines()[-1:]


def test_programs_do_not_share_random_numbers(sandbox: Sandbox) -> None:
    first, second = (judge(sandbox, "import random; print(random.random())" + "\n" * n) for n in (0, 1))
    assert first.stdout != second.stdout


# What only an isolating backend promises.


def test_the_network_is_out_of_reach(boxed: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        source = f"import socket; socket.create_connection(('127.0.0.1', {port}), 2)"
        assert judge(boxed, source).verdict is Verdict.runtime_error
    assert judge(boxed, "import socket; print(socket.if_nameindex())").stdout == "[(1, 'lo')]\n"


@pytest.mark.parametrize("path", ["/box/x", "/usr/x", "/x", "/etc/x", "/dev/x", "/proc/sys/kernel/hostname"])
def test_nothing_but_tmp_is_writable(boxed: Sandbox, path: str) -> None:
    assert judge(boxed, f"open('/tmp/x', 'w')\nopen({path!r}, 'w')").verdict is Verdict.runtime_error


def test_tmp_and_shared_memory_are_small(boxed: Sandbox) -> None:
    size = 4 * MIB if boxed.backend == "bubblewrap" else docker.FILES_BYTES
    limits = Limits(file_bytes=size)
    for directory in ("/tmp", "/dev/shm"):
        source = f"for n in range(3): open(f'{directory}/{{n}}', 'wb').write(bytes({size // 2}))"
        result = judge(boxed, source, limits=limits)
        assert result.verdict is Verdict.runtime_error
        assert "No space left" in result.stderr


def test_files_of_the_host_are_out_of_sight(boxed: Sandbox, tmp_path: Path) -> None:
    hidden = [tmp_path, Path(__file__)]
    if boxed.backend == "bubblewrap":  # a container has such files of its own
        hidden += [Path.home(), Path("/etc/passwd"), Path("/var")]
    for path in hidden:
        assert judge(boxed, f"import os; print(os.path.exists({str(path)!r}))").stdout == "False\n", path


def test_other_processes_are_out_of_sight(boxed: Sandbox) -> None:
    result = judge(boxed, "import os; print(len([p for p in os.listdir('/proc') if p.isdigit()]))")
    # In a container: the program, the runner, the warm interpreter and the warm compiler.
    assert int(result.stdout) <= (4 if boxed.backend == "docker" else 3)


def test_user_namespaces_are_closed(boxed: Sandbox) -> None:
    assert judge(boxed, "unshare --user true", "sh").exit_code != 0


def test_programs_find_nothing_of_each_other(boxed: Sandbox) -> None:
    assert judge(boxed, "open('/tmp/left', 'w'); open('/dev/shm/left', 'w')").verdict is Verdict.passed
    assert judge(boxed, "import os; print(os.listdir('/tmp'), os.listdir('/dev/shm'))").stdout == "[] []\n"


def test_a_program_cannot_speak_for_bubblewrap(boxed: Sandbox) -> None:
    """A program that prints bubblewrap's error message on stderr does not cause a `sandbox_error`."""
    source = "import sys; sys.stderr.write('bwrap: Creating new namespace failed\\n'); sys.exit(1)"
    assert judge(boxed, source).verdict is Verdict.runtime_error


# What the sandbox does when it fails itself.


def test_a_killed_worker_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    with Sandbox("process") as sandbox:
        assert judge(sandbox, "print(1)").verdict is Verdict.passed
        (worker,) = [worker for worker in sandbox._workers if worker._channel]
        assert isinstance(worker._channel, Pipe)
        first = worker._channel.process.pid
        threading.Timer(0.5, os.kill, (first, 9)).start()
        assert judge(sandbox, "import time; time.sleep(2)").verdict is Verdict.passed
        assert worker._channel.process.pid != first
    assert "attempt 1 of 3" in caplog.text


def test_a_killed_worker_takes_its_program_along() -> None:
    with Sandbox("process") as sandbox:
        for language, source in (
            ("sh", f"exec sleep {NAP}"),
            ("py", f"import os; os.execvp('sleep', ['sleep', '{NAP}'])"),
        ):
            assert judge(sandbox, "print(1)").verdict is Verdict.passed
            channel = sandbox._workers[0]._channel
            assert channel is not None
            threading.Timer(0.3, channel.kill).start()
            judge(sandbox, source, language, Limits(wall_seconds=1))
            assert not [line for line in command_lines() if NAP in line]


def test_a_failure_that_stays_is_a_sandbox_error(scratch: Path) -> None:
    before = set(scratch.glob("sandbox-*"))
    with Sandbox("process") as sandbox:
        assert judge(sandbox, "print(1)").verdict is Verdict.passed
        (own,) = set(scratch.glob("sandbox-*")) - before
        own.rmdir()
        result = judge(sandbox, "print(2)")
        own.mkdir(mode=0o711)
        assert result.verdict is Verdict.sandbox_error
        assert "FileNotFoundError" in result.stderr
        assert judge(sandbox, "print(3)").verdict is Verdict.passed


def test_the_end_of_a_child_is_told_where_there_are_no_pidfds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under gVisor there are no pidfds."""

    def refuse(_: int) -> int:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    with subprocess.Popen(["sleep", "0.3"]) as child:
        fd = _end_of(child.pid)
        assert select.select([fd], [], [], 0.05)[0] == []
        assert select.select([fd], [], [], 10)[0] == [fd]
        os.close(fd)
        assert child.wait() == 0


def test_closing_ends_what_still_runs() -> None:
    sandbox = Sandbox("process", workers=2)
    results = sandbox.run(Program(str(n), "sh", f"sleep {n}.75; exec sleep {NAP}") for n in range(2))
    threading.Timer(1.5, sandbox.close).start()
    started = time.monotonic()
    with pytest.raises(SandboxError, match="closed"):
        list(results)
    assert time.monotonic() - started < 10
    sandbox.close()
    assert not [line for line in command_lines() if NAP in line]
