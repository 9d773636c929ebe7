"""A warm Python interpreter that forks one child per program: starting Python costs four times as much.

`sandbox.launch.ForkServer` starts it with one end of a Unix socket of whole messages. A request is what
`sandbox.launch.Forked` sends: a line with the user and a line of JSON, with the descriptors of the program's stdin, stdout and
stderr, and of a file with its code where that is compiled already. The answer, JSON, is `{"status", "cpu_seconds",
"memory_bytes"}` when the child has ended, or `{"failed"}` where it cannot be started.

The child runs the program as `python3 main.py` would: a fresh `__main__`, its own session, directory,
environment, user and limits. It inherits nothing but the modules below, which are imported in the parent
already; expected outputs and the code of other programs never come near it. What it leaves behind is the caller's to kill.
"""

import atexit
import gc
import importlib
import json
import marshal
import os
import struct
import sys
import types
from _socket import CMSG_LEN, socket  # not the module socket: it would be in every child
from collections.abc import Callable
from typing import Any

from sandbox.confine import confine, die_with_parent

WARM = (
    "bisect", "collections", "copy", "functools", "heapq", "itertools", "json", "math", "operator", "re", "string", "typing",
)  # fmt: skip
"""What most programs import, and no more: all memory costs something in every child. Least of all random, which seeds itself
anew in each."""
_LARGEST = 1 << 16
"""Bytes of a request."""


def serve(fd: int, processors: "set[int]") -> None:
    """Answer requests on socket `fd` until the caller hangs up; in a child, run the program, on any of `processors`."""
    job = _next_program(socket(fileno=fd), processors)
    if job is None:
        return
    program, compiled = job
    before = _old_collections()
    end = _end
    status = 0
    try:
        if compiled is not None:
            code = marshal.loads(os.pread(compiled, 1 << 20, 0))  # noqa: S302 - by `servers/compile.py`
            os.close(compiled)
        else:
            with open(program, "rb") as source:
                code = compile(source.read(), program, "exec", dont_inherit=True)
        exec(code, sys.modules["__main__"].__dict__)  # noqa: S102 - the point of it all
    except Exception:
        sys.excepthook(*sys.exc_info())
        status = 1
    code = None
    end(status, before)


def _old_collections() -> "list[int]":
    """How often objects that are not new have been collected: only then do some become old ones."""
    return [generation["collections"] for generation in gc.get_stats()[1:]]


def _end(status: int, before: "list[int]", leave: "Callable[[int], Any]" = os._exit) -> None:
    """End the process as the interpreter does, but leave what was warm before to the kernel.

    That is more than half of what a short program costs. In the interpreter's own order (Py_FinalizeEx): threads are waited
    for, exit functions called, the program's own objects taken down, and its output written out.
    """
    if "threading" in sys.modules:
        sys.modules["threading"]._shutdown()
    atexit._run_exitfuncs()
    sys.modules.pop("__main__", None)
    # A whole collection also clears away what the interpreter keeps for its next objects: of no use to a process that ends.
    gc.collect(1 if _old_collections() == before else 2)
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None and not stream.closed:
                stream.flush()
    except Exception:
        status = 120
    leave(status)


def _next_program(server: socket, processors: "set[int]") -> "tuple[str, int | None] | None":
    """Serve until the caller hangs up (None), or return the program to run and where its code is: this is its process then.

    All that can be is done before the fork: each page that a child writes to, by a reference count for instance, is copied.
    """
    own = os.getpid()
    # As it does already; but a child's first such call costs 0.25 ms more where its parent made none.
    die_with_parent(os.getppid())
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
    known, job = b"", {}
    while True:
        message, received, _, _ = server.recvmsg(_LARGEST, CMSG_LEN(16))
        if not message:
            return None
        fds = struct.unpack(f"{len(received[0][2]) // 4}i", received[0][2])
        user, head = message.split(b"\n")
        if head != known:
            known, job = head, json.loads(head)
            job["rlimits"] = {int(which): tuple(pair) for which, pair in job["rlimits"].items()}
            _be_ready_for(job["file"], job["env"])
        pid = os.fork()
        if pid == 0:
            try:
                for target, fd in enumerate(fds[:3]):
                    os.dup2(fd, target)
                    os.close(fd)
                _go_anywhere(processors)
                os.chdir(job["directory"])
                confine(job["rlimits"], int(user) if user else None, own)
            except Exception as error:  # ours, not the program's
                server.send(json.dumps({"failed": repr(error)}).encode())
                os._exit(1)
            server.close()
            return job["file"], fds[3] if len(fds) > 3 else None
        for fd in fds:
            os.close(fd)
        _, status, used = os.wait4(pid, 0)
        done = {
            "status": status,
            "cpu_seconds": used.ru_utime + used.ru_stime,
            "memory_bytes": used.ru_maxrss * 1024,
        }
        server.send(json.dumps(done).encode())


def _go_anywhere(processors: "set[int]") -> None:
    """Run on any of `processors`: the parent is held to one."""
    try:
        os.sched_setaffinity(0, processors)
    except OSError:
        return


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
