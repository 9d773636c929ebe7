"""A warm Python interpreter that forks one child per program: starting Python costs four times as much.

`sandbox.launch.ForkServer` starts it with one end of a Unix socket of whole messages, all JSON. A request is
what `sandbox.launch.Forked` sends, with three file descriptors: the program's stdin, stdout and stderr. The
answers are `{"pid"}` at once and `{"status", "cpu_seconds", "memory_bytes"}` when the child has ended, or
`{"failed"}` where it cannot be started.

The child runs the program as `python3 main.py` would: a fresh `__main__`, its own session, directory,
environment, user and limits. It inherits nothing but the modules below, which are imported in the parent
already; expected outputs never come near it. What it leaves behind is the caller's to kill.
"""

import atexit
import gc
import importlib
import json
import os
import socket
import sys
import types
from collections.abc import Callable
from typing import Any

from sandbox.confine import confine

# What most programs import and is cheap to take down again: each child frees all of it at its end.
# fmt: off
WARM = (
    "bisect", "collections", "copy", "datetime", "functools", "heapq", "itertools", "json", "math", "operator",
    "random", "re", "string", "typing",
)
# fmt: on


def serve(fd: int) -> None:
    """Answer requests on socket `fd` until the caller hangs up; in a child, run the program."""
    program = _next_program(socket.socket(fileno=fd))
    if program is None:
        return
    end = _end
    status = 0
    try:
        with open(program, "rb") as source:
            code = compile(source.read(), program, "exec", dont_inherit=True)
        exec(code, sys.modules["__main__"].__dict__)  # noqa: S102 - the point of it all
    except Exception:
        sys.excepthook(*sys.exc_info())
        status = 1
    code = None  # type: ignore[assignment]
    end(status)


def _end(status: int, leave: "Callable[[int], Any]" = os._exit) -> None:
    """End the process as the interpreter does, but leave what was warm before to the kernel.

    That is more than half of what a short program costs. In the interpreter's own order (Py_FinalizeEx): threads are waited
    for, exit functions called, the program's own objects taken down, and its output written out.
    """
    if "threading" in sys.modules:
        sys.modules["threading"]._shutdown()
    atexit._run_exitfuncs()
    sys.modules.pop("__main__", None)
    gc.collect()
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None and not stream.closed:
                stream.flush()
    except Exception:
        status = 120
    leave(status)


def _next_program(server: socket.socket) -> "str | None":
    """Serve until the caller hangs up (None), or return the program to run: this is its process then.

    All that can be is done before the fork: each page that a child writes to, by a reference count for instance, is copied.
    """
    own = os.getpid()
    for name in WARM:
        importlib.import_module(name)
    with open(__file__, "rb") as source:
        compile(source.read(), __file__, "exec")  # what the compiler makes on first use costs a child 1 ms
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    sys.path[:] = ["", *(path for path in sys.path[1:] if path != root)]
    for name in [name for name in sys.modules if name.split(".")[0] == "sandbox"]:
        del sys.modules[name]
    sys.excepthook = _without_our_frames
    gc.collect()
    gc.freeze()  # the children share these objects' pages
    while True:
        message, fds, _, _ = socket.recv_fds(server, 1 << 20, 3)
        if not message:
            return None
        job = json.loads(message)
        program: str = job["file"]
        _be_ready_for(program, job["env"])
        rlimits = {int(which): tuple(pair) for which, pair in job["rlimits"].items()}
        directory, uid = job["directory"], job["uid"]
        pid = os.fork()
        if pid == 0:
            try:
                os.setsid()
                for target, fd in enumerate(fds):
                    os.dup2(fd, target)
                    os.close(fd)
                os.chdir(directory)
                confine(rlimits, uid, own)
            except Exception as error:  # ours, not the program's
                server.send(json.dumps({"failed": repr(error)}).encode())
                os._exit(1)
            server.close()
            return program
        for fd in fds:
            os.close(fd)
        server.send(json.dumps({"pid": pid}).encode())
        _, status, used = os.wait4(pid, 0)
        done = {
            "status": status,
            "cpu_seconds": used.ru_utime + used.ru_stime,
            "memory_bytes": used.ru_maxrss * 1024,
        }
        server.send(json.dumps(done).encode())


def _be_ready_for(program: str, env: "dict[str, str]") -> None:
    """Make this interpreter look as one that was started with `program`."""
    for name in os.environ.keys() - env.keys():
        del os.environ[name]
    for name, value in env.items():
        if os.environ.get(name) != value:
            os.environ[name] = value
    sys.argv[:] = [program]
    sys.path[0] = os.path.dirname(program)
    module = types.ModuleType("__main__")
    module.__file__ = program
    sys.modules["__main__"] = module


def _without_our_frames(kind: type, error: BaseException, trace: "types.TracebackType | None") -> None:
    """The interpreter's own report, from the program's first frame on (a syntax error has none)."""
    frames = trace
    while frames:
        if frames.tb_frame.f_code.co_filename == __file__:
            trace = frames.tb_next
        frames = frames.tb_next
    sys.__excepthook__(kind, error.with_traceback(trace), trace)
