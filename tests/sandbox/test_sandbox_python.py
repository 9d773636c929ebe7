"""Tests that what speeds up Python (fork server, warm compiler, pinning) has no visible effect on programs."""

import importlib.util
import json
import marshal
import os
import subprocess
import sys
import tempfile
import types
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox import processes
from sandbox.client import Sandbox
from sandbox.errors import SandboxError
from sandbox.forkserver import WARM
from sandbox.judge import Judge, Place
from sandbox.launch import Command, Forked, ForkServer, runnable
from sandbox.prepared import _library
from sandbox.processes import Pinned, cpu_seconds
from sandbox.verdicts import MIB, Limits, Program, Result, Verdict
from tests.command import ROOT
from tests.needs import need, need_tools
from tests.sandbox.conftest import need_backend

CODE = marshal.dumps(compile("1 + 1", "main.py", "exec"))
SERVER = ROOT / "sandbox" / "servers" / "compile.py"


@pytest.fixture(scope="module", params=["process", "process without gcc", "docker"])
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    backend, _, without = request.param.partition(" ")
    need_backend(backend)
    with pytest.MonkeyPatch.context() as patch:
        if without:
            patch.setenv("XDG_CACHE_HOME", os.devnull)  # in which nothing can be made
        with Sandbox(backend) as made:
            yield made


@pytest.fixture(scope="module")
def server() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("server", SERVER)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def judge(sandbox: Sandbox, source: str) -> Result:
    (result,) = sandbox.run([Program("x", "py", source)])
    return result


# What an import makes of `sys.modules` and of the names of packages.
NEW = """import sys, {0}
print(sorted(sys.modules))
print([name for name, module in sorted(sys.modules.items()) for child in [name.rpartition(".")] if child[0] and not hasattr(sys.modules[child[0]], child[2])])
print([(name, sorted(vars(module)), getattr(module, "__file__", "")) for name, module in sorted(sys.modules.items()) if name != "__main__"])"""
PROGRAMS = {
    "plain": "def f(x): return x + 1\nprint(f(1), __name__, __file__ == __import__('sys').argv[0])",
    "a coding": "# coding: latin-1\nprint(len('é'))",
    "a warning": "print('a' is 'a')",
    "an escape that is none": r"print('\d')",
    "a set's order": "for x in {'pear', 'fig', 'plum', 'lime', 'kiwi'}: print(x)",
    "sets in a tuple": "def f(x=({'pear', 'fig', 'plum'},)): return [*x[0]]\nprint(f(), 3 in {1, 2, 3})",
    "a mistake": "print(1)\ndef f(:\n",
    "an indentation": "def f():\nprint(1)",
    "nested too deeply": "(" * 500 + ")" * 500,
    "an exception": "def f():\n    raise ValueError('here')\nprint(1)\nf()\n",
    "identity": "a = 'x y z'\ndef f(): return 'x y z'\nprint(a is f(), f.__code__.co_filename == __file__)",
    "numbers": "print(-0.0, 1e400, 1j, 10 ** 40, float('nan'), ..., b'\\0')",
    "no stdout": "import sys\nprint(1)\nprint(2, file=sys.stderr)\nsys.stdout.flush()\ndel sys.stdout",
    "a closed stdout": "import sys\nprint(1)\nsys.stdout.close()",
    "a stdout of its own": "import sys\nsys.stdout = open('out', 'w')\nprint(1)\nsys.stdout.detach()",
    "a stdout that fails": "import sys\nclass Out:\n    closed = False\n    def __repr__(self): return 'Out'\n    def write(self, text): pass\n"
    "    def flush(self): raise OSError('full')\nsys.stdout = Out()",
    "builtins": "import builtins\nprint(__builtins__ is builtins, list(vars()))",
    "its source": "import inspect\ndef f(): pass\nprint(inspect.getsource(f))",
    "many lines": "\n" * 60_000 + "print(1)",
    "a lone surrogate": "print(len('\ud800'))",
    "a saved stdout": "import io, sys\nreal, sys.stdout = sys.stdout, io.StringIO()\nprint(1)\nreal.write(sys.stdout.getvalue())",
    "the first stdout": "import sys\nsys.stdout = None\nprint(1)\nsys.__stdout__.write('2')",
    "a redirected stdout": "import contextlib, os\ncontextlib.redirect_stdout(os.fdopen(os.dup(1), 'w')).__enter__()\nprint(1)",
    "a file of its own": "f = open(1, 'w', closefd=False)\nf.write('1')",
    "a file in a cycle": "f = open(1, 'w', closefd=False)\ndef g(): return f\nprint(1, file=f)\nprint(2)",
    "a file that others hold": "import bisect, re\nbisect.out = open(1, 'wb', closefd=False)\nbisect.out.write(b'1')",
    "two ways to write": "import sys\na = open(1, 'w', closefd=False)\nb = open(2, 'w', closefd=False)\nb.write('1')\na.write('2')\nprint(3)",
    "a wrapped stdout": "import io, sys\nout = io.TextIOWrapper(sys.stdout.buffer, write_through=False)\nout.write('1')",
    "a wrapped stdout in its place": "import io, sys\nsys.stdout = io.TextIOWrapper(sys.stdout.buffer, newline='\\r\\n')\nprint(1)",
    "a stdout for codecs": "import codecs, sys\nsys.stdout = codecs.getwriter('latin-1')(sys.stdout.buffer)\nprint('\\xe9'.isalpha())",
    "fast output": "import io, os, sys\nclass Out(io.IOBase):\n    def __init__(self): self.parts = []\n    def write(self, text): self.parts.append(text)\n"
    "    def close(self): os.write(1, ''.join(self.parts).encode())\nsys.stdout = Out()\nprint(1)",
    "fast output that is not stdout": "import io, os\nclass Out(io.RawIOBase):\n    def close(self): os.write(1, b'closed')\nout = Out()\nprint(1)",
    "exit functions": "import atexit, sys\natexit.register(print, 1)\natexit.register(lambda: sys.__stdout__.write('2'))\nsys.stdout.write('3')",
    "a finalizer": "import weakref\nclass A: pass\na = A()\nweakref.finalize(a, print, 'gone')\nprint(1)",
    "a weak reference": "import weakref\nclass A: pass\na = A()\nr = weakref.ref(a, lambda _: print('gone'))\nprint(1)",
    "a weak reference of C": "import os, weakref\nclass A: pass\na = A()\nr = weakref.ref(a, [].append)\nclass B:\n    def __repr__(self): return os.write(1, b'gone') and ''\ns = weakref.ref(a, B().__str__)",
    "a destructor": "import os\nclass A:\n    def __del__(self): os.write(1, b'gone')\na = A()\nprint(1)",
    "a destructor in a cycle": "class A:\n    def __del__(self): print('gone')\na = A()\na.a = a\ndel a\nprint(1)",
    "a destructor without memory": "class A:\n    __slots__ = ()\n    def __del__(self, say=print): say('gone')\na = [(A(),), A()]\nprint(1)",
    "a destructor that comes late": "import collections\nclass A: __slots__ = ()\na = A()\ncollections.kept = A()\nA.__del__ = lambda self, say=print: say('gone')",
    "a destructor of a list": "class A(list):\n    def __del__(self, say=print): say(*self)\nimport string\nstring.a = A([1, 2])",
    "a destructor of an exception": "class A(Exception):\n    def __del__(self, say=print): say('gone')\nraise A",
    "a local's destructor": "class A:\n    def __del__(self, say=print): say('gone')\ndef f():\n    a = A()\n    print(1 / 0)\nimport atexit\natexit.register(print, 'end')\nf()",
    "a class that lies": "class M(type):\n    def __getattribute__(cls, name): raise ValueError(name)\nclass A(metaclass=M):\n"
    "    def __del__(self, say=print): say('gone')\na = A()\nprint(1)",
    "what lies about itself": "class M(type):\n    def __getattribute__(cls, name): print('M', name)\n"
    "class A(metaclass=M):\n    __slots__ = ()\nimport weakref\nclass B:\n    __class__ = property(lambda self: print('B'))\n"
    "class R(weakref.ref):\n    __callback__ = property(lambda self: print('R'))\nb = B()\nr = R(b)",
    "no frame left": "import sys\nf = open(1, 'w', closefd=False)\nf.write('1')\nsys.setrecursionlimit(9)",
    "a generator": "def f():\n    try:\n        yield 1\n    finally:\n        print('finally')\ng = f()\nprint(next(g))",
    "a generator that others hold": "import heapq\ndef f(say=print):\n    with open(1, 'w', closefd=False) as out:\n        yield out.write('in ')\n        say(1)\n"
    "heapq.g = f()\nprint(next(heapq.g))",
    "a coroutine": "async def f():\n    try:\n        await g()\n    finally:\n        print('finally')\nimport types\n@types.coroutine\ndef g(): yield 1\n"
    "c = f()\nprint(c.send(None))",
    "a thread": "import threading\ndef f():\n    threading.main_thread().join()\n    print('late')\nthreading.Thread(target=f).start()\nprint(1)",
    "a daemon": "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\nprint(1)",
    "a thread that fails": "import threading\nt = threading.Thread(target=lambda: 1 / 0, name='t')\nt.start()\nt.join()\nprint(1)",
    "a pool": "from concurrent.futures import ThreadPoolExecutor as E\ne = E(2)\nprint(1)\ne.submit(print, 2)",
    "logging": "import logging.handlers, sys\nto = logging.StreamHandler(sys.stdout)\nlog = logging.getLogger()\n"
    "log.addHandler(logging.handlers.MemoryHandler(100, target=to))\nlog.warning('kept')\nprint(1)",
    "an exit code": "import sys\nf = open(1, 'w', closefd=False)\nf.write('1')\nsys.exit(7)",
    "an exit code at the end": "import atexit, os\natexit.register(lambda: os.write(1, b'1') and os._exit(9))",
    "an exception and a file": "f = open(1, 'w', closefd=False)\nf.write('1')\nraise ValueError('here')",
    "a hook": "import sys\nsys.excepthook = lambda *what: print('hook', what[0], sys.last_value)\nf = open(1, 'w', closefd=False)\nf.write('1')\n1 / 0",
    "a file that is full": "f = open('/dev/full', 'w')\nf.write('1')\nprint(1)\n",
    "a stdout that is gone": "import os\nprint(1)\nos.close(1)",
    "C's own output": "import ctypes\nctypes.CDLL(None).printf(b'1\\n')",
    "C's own output, by what is there": "import ctypes\nctypes.pythonapi.puts(b'1')\nprint(2)",
    "objects that the collector leaves out": "import gc\nf = open(1, 'w', closefd=False)\nf.write('1')\ngc.freeze()",
    "objects that the collector left out": "import gc\nf = open(1, 'w', closefd=False)\nf.write('1')\ngc.unfreeze()\ngc.disable()",
    "many objects": "a = [[n] for n in range(600_000)]\nf = open(1, 'w', closefd=False)\nf.write('1')",
    "a child": "import os, sys\nf = open(1, 'w', closefd=False)\nf.write('1')\nif os.fork(): os.wait()",
    "a queue of a child": "import multiprocessing as m\nif __name__ == '__main__':\n    q = m.Queue()\n    q.put(1)\n    print(q.get())",
    "an interrupt": "f = open(1, 'w', closefd=False)\nf.write('1')\nraise KeyboardInterrupt",
    "an exit code and a saved stdout": "import io, sys\nreal, sys.stdout = sys.stdout, io.StringIO()\nreal.write('1')\nsys.exit(3)",
    "its depth": "n = 0\ndef f():\n    global n\n    n += 1\n    f()\ntry:\n    f()\nexcept RecursionError:\n    print(n)",
    "its depth in C": "n = 0\ndef f(x):\n    global n\n    n += 1\n    sorted([0], key=f)\ntry:\n    f(0)\nexcept RecursionError:\n    print(n)",
    "its frames": "import sys, warnings\nprint(sys._getframe().f_back, sys.getrecursionlimit())\nwarnings.warn('here', stacklevel=2)",
    "its modules": "import sys\nprint(sorted(sys.modules), type(__loader__), __spec__)",
    **{
        f"a new {name}": NEW.format(name)
        for name in (*WARM, "collections.abc", "ctypes", "dataclasses", "random", "os, re, typing")
    },
    "a module from elsewhere": "import importlib.util, sys\nprint(importlib.util.find_spec('re') is None, 're' in sys.modules)\nimport re\nprint(re.__spec__.origin, importlib.reload(re) is re)",
    "a module again": "import sys, string\nfirst = string\ndel sys.modules['string']\nimport string\nprint(first is string)",
    "a temporary folder": "import tempfile\nt = tempfile.TemporaryDirectory()\nprint(1)",
}


# Runs a source by a fresh interpreter, of the version that the sandbox has.
FRESH = """
import json, os, subprocess, sys
with open("main.py", "w", encoding="utf-8", errors="replace", newline="") as file:
    file.write({!r})
plain = subprocess.run([sys.executable, os.path.abspath("main.py")], capture_output=True)
print(json.dumps([plain.stdout.decode(), plain.returncode, plain.stderr.decode()]))
"""


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_ends_as_under_a_fresh_interpreter(sandbox: Sandbox, name: str) -> None:
    stdout, exit_code, stderr = json.loads(judge(sandbox, FRESH.format(PROGRAMS[name])).stdout)
    exit_code = 128 - exit_code if exit_code < 0 else exit_code
    for times in range(2):  # the compiler is the same process
        found = judge(sandbox, PROGRAMS[name] + "\n#" + " " * times)
        assert found.stdout == stdout
        assert found.exit_code == exit_code
        assert _without_paths(found.stderr) == _without_paths(stderr)


def _without_paths(text: str) -> list[str]:
    return [line if "main.py" not in line else line.partition("main.py")[2] for line in text.splitlines()]


def test_a_program_sees_no_trace_of_how_it_was_started(sandbox: Sandbox) -> None:
    source = """
import os, sys
print(os.getsid(0) == os.getpgid(0) == os.getpid(), len(os.sched_getaffinity(0)), "LD_BIND_NOW" in os.environ)
print(sorted(name for name in sys.modules if "sandbox" in name), "_socket" in dir())
print(sorted(os.listdir("/proc/self/fd")))
"""
    lines = judge(sandbox, source).stdout.splitlines()
    assert lines[0] == f"True {len(os.sched_getaffinity(0))} False"
    assert lines[1] == "[] False"
    assert lines[2] == "['0', '1', '2', '3']"  # 3 is the listing's own


def exit_code(child: Forked) -> int:
    while (ended := child.wait()) is None:
        continue
    return ended[0]


def test_a_program_that_cannot_be_started_is_our_failure(tmp_path: Path) -> None:
    need_tools("gcc")
    _library("fork")[1](tmp_path)
    server = ForkServer(sys.executable, {"A": "b"}, os.sched_getaffinity(0), False, str(tmp_path / "fork.so"))
    try:
        gone = Command((), tmp_path / "gone", {"A": "b"}, {})
        there = replace(gone, directory=tmp_path)
        for command in (gone, there, gone):
            with open(os.devnull, "r+b") as null:
                child = Forked(
                    server,
                    command,
                    [str(tmp_path / "main.py"), "A=b"],
                    runnable(CODE, True, ""),
                    (null.fileno(),) * 3,
                )
            if command is there:
                assert exit_code(child) == 0
            else:
                with pytest.raises(SandboxError, match="cannot start a Python program: .*No such file"):
                    exit_code(child)
                server.answer()  # it has ended, too
    finally:
        server.close()


def test_a_library_that_cannot_be_loaded_is_done_without() -> None:
    need_tools("gcc")
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setenv("XDG_CACHE_HOME", folder)
        Path(folder).chmod(0o755)
        run = [sys.executable, "-m", "sandbox.prepared", "fork"]
        assert subprocess.run(run, cwd=ROOT, check=False).returncode == 0
        (library,) = Path(folder).glob("selftrain-sandbox/fork-*/fork.so")
        library.write_text("for another machine")
        assert subprocess.run(run, cwd=ROOT, check=False).returncode == 1
        with Sandbox("process") as sandbox:
            assert judge(sandbox, "print(1 + 1)").stdout == "2\n"


def test_what_is_read_of_a_process_is_not_taken_for_that_of_a_later_one() -> None:
    child = subprocess.Popen(["sleep", "60"])
    path = f"/proc/{child.pid}/task/{child.pid}/children"
    assert processes.contents_again(path) == b""
    child.kill()
    child.wait()
    processes.forget(child.pid)
    with pytest.raises(FileNotFoundError):
        processes.contents_again(path)


def test_a_signal_to_its_group_reaches_nobody_else(sandbox: Sandbox) -> None:
    assert judge(sandbox, "import os; os.kill(0, 9)").exit_code == 128 + 9
    assert judge(sandbox, "print('alive')").stdout == "alive\n"


def test_the_kernel_does_not_hang_up_on_the_warm_interpreter_for_a_program(sandbox: Sandbox) -> None:
    """The kernel sends SIGHUP to an orphaned group with a stopped member, and any process of a session may join such a group."""
    source = """
import os, signal, time
group = os.getpgid(os.getppid())
if os.fork() == 0:
    os.setpgid(0, group)
    os.kill(os.getpid(), signal.SIGSTOP)
time.sleep(0.2)
print("ended")
"""
    assert judge(sandbox, source).verdict is not Verdict.sandbox_error
    assert judge(sandbox, "print('alive')").stdout == "alive\n"


def test_the_end_of_a_program_takes_no_memory(sandbox: Sandbox) -> None:
    source = "def f(): pass\na = [[None] for _ in range(1_200_000)]\nprint(len(a))"
    (result,) = sandbox.run([Program("x", "py", source, limits=Limits(memory_bytes=128 * MIB))])
    assert (result.verdict, result.stdout) == (Verdict.passed, "1200000\n"), result.stderr


def test_only_what_marshal_gives_back_as_it_was_is_compiled_elsewhere(server: types.ModuleType) -> None:
    code = server._compiled(b"x = (1, 'a', 2.5)\ndef f(y): return y", "main.py")
    assert marshal.loads(code) == compile("x = (1, 'a', 2.5)\ndef f(y): return y", "main.py", "exec")
    for source in (
        "y in {1, 2}",
        "f(({1: 2}, y in {3, 4}))",
        "lambda: [x for x in {5, 6}]",
        "f(:",
        "x = 1\0",
    ):
        assert server._compiled(source.encode(), "main.py") is None


def test_a_warning_is_left_to_the_program() -> None:
    request = b"".join(len(part).to_bytes(4, "big") + part for part in (b"0 main.py", b"1 is 1"))
    done = subprocess.run([sys.executable, str(SERVER)], input=request, capture_output=True, check=True)
    assert (done.stdout, done.stderr) == ((1).to_bytes(4, "big") + bytes(8), b"")


def test_a_compiler_that_never_works_is_tried_ever_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need(os.geteuid() == 0, "only root has warm compilers")
    started = []

    def command(name: str) -> tuple[str, ...]:
        started.append(name)
        return ("true",)

    monkeypatch.setattr("sandbox.judge.command", command)
    judge = Judge(tmp_path, Place.process)
    for _ in range(20):
        if found := judge.compiler("py"):
            assert found.compile("main.py", b"1", 5.0) is None
            judge.drop_compiler("py")
    assert len(started) == 4  # the 1st, 3rd, 7th and 15th


def test_a_compiler_remembers_its_last_results(tmp_path: Path) -> None:
    need(os.geteuid() == 0, "only root has warm compilers")
    judge = Judge(tmp_path, Place.process)
    compiler = judge.compiler("py")
    assert compiler
    first, *_ = (compiler.compile("0 main.py", source, 5.0) for source in (b"1", b"2", b"3"))
    again = compiler.compile("0 main.py", b"1", 5.0)
    assert first
    assert again
    assert (again.files, again.cpu_seconds, compiler.served) == (first.files, 0.0, 3)
    for source in (b"4", b"5", b"6", b"7", b"1"):
        compiler.compile("0 main.py", source, 5.0)
    assert compiler.served == 8
    judge.drop_compiler("py")


def test_a_process_is_held_to_a_processor_and_let_go() -> None:
    everywhere = os.sched_getaffinity(0)
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        pinned = Pinned()
        for _ in range(2):
            pinned.pin(other.pid)
            assert os.sched_getaffinity(0) == os.sched_getaffinity(other.pid) <= everywhere
            assert len(os.sched_getaffinity(0)) == 1
            pinned.release()
            assert os.sched_getaffinity(0) == everywhere
    finally:
        os.sched_setaffinity(0, everywhere)
        other.communicate(b"\n")
    Pinned().pin(other.pid)  # which has ended
    os.sched_setaffinity(0, everywhere)


def test_the_cpu_time_of_another_process_is_known() -> None:
    busy = subprocess.Popen(
        [sys.executable, "-c", "for _ in range(10**7): pass\ninput()"], stdin=subprocess.PIPE
    )
    while cpu_seconds(busy.pid) < 0.1:
        assert busy.poll() is None
    busy.communicate(b"\n")
    assert cpu_seconds(busy.pid) == 0.0


def test_nothing_of_an_earlier_program_is_in_the_memory_of_a_later_one(sandbox: Sandbox) -> None:
    """Each child is a copy of the same interpreter, so nothing of a program may ever be in its memory."""
    secret = "".join(reversed("nothing-to-see-in-here"))
    assert judge(sandbox, f"def f(): return {secret!r}\nprint(f())").stdout == f"{secret}\n"
    source = f"""
import ctypes
wanted = "".join(reversed({secret[::-1]!r})).encode()
found = 0
for line in open("/proc/self/maps"):
    first, last = (int(end, 16) for end in line.split()[0].split("-"))
    if line.split()[1].startswith("rw"):
        found += ctypes.string_at(first, last - first).count(wanted)
print(found)
"""
    with_it = int(judge(sandbox, f"there = {secret!r}\n{source}").stdout)
    without = int(judge(sandbox, source).stdout)
    assert with_it > without, "it finds what is there"
    assert without <= 1, "what it looks for"
