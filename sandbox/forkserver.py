"""A warm Python interpreter that forks one child per program: starting Python costs four times as much.

`sandbox.launch.ForkServer` starts it with one end of a Unix socket of whole messages. A request is what `sandbox.launch.Forked`
sends: a line with the user (-1: unchanged) and a *head*, the same for most programs (a line of resource limits, three numbers
each; the directory; the program's file and environment, NAME=VALUE, with a NUL byte between each two); with the descriptors of
the program's stdin, stdout and stderr, and of a file with its code where that is compiled already. The answer is
`STATUS CPU_SECONDS MEMORY_BYTES` when the child has ended, or `failed WHY` where it cannot be started.

The child runs the program as `python3 main.py` would: a fresh `__main__`, its own session, directory,
environment, user and limits. It inherits nothing but the modules below, which are imported in the parent
already; expected outputs and the code of other programs never come near it. What it leaves behind is the caller's to kill.
"""

import atexit
import builtins
import contextlib
import ctypes
import functools
import gc
import marshal
import os
import sys
import types
import weakref
from collections.abc import Callable
from typing import Any

WARM = (
    "bisect", "collections", "copy", "functools", "heapq", "itertools", "math", "operator", "re", "string", "typing",
)  # fmt: skip
"""What most programs import, and no more: all memory costs something in every child. Least of all random, which seeds itself
anew in each."""
_LARGEST = 1 << 16
"""Bytes of a request, and of code; what `servers/fork.c` has."""
_WALL = 0x40000000
_STREAMS = ("stdin", "stdout", "stderr", "__stdin__", "__stdout__", "__stderr__")
_MANY_BLOCKS = 500_000
_COLLECTED = 1 << 14  # Py_TPFLAGS_HAVE_GC
_QUIET = frozenset(
    (
        tuple,
        list,
        dict,
        set,
        type,
        weakref.ref,
        types.FunctionType,
        types.BuiltinFunctionType,
        types.ModuleType,
    )
)
"""Kinds of which most objects are."""
_C_FUNCTION = ctypes.CFUNCTYPE(None).__mro__[1]
# Of a class or reference itself: what it says of itself may be a function of the program's.
_DICT, _MRO, _FLAGS = (type.__dict__[name].__get__ for name in ("__dict__", "__mro__", "__flags__"))
_CALLBACK = weakref.ref.__dict__["__callback__"].__get__


def serve(fd: int, processors: "set[int]", compiling: bool, library: str) -> None:
    """Answer requests on socket `fd` until the caller hangs up; in a child, run the program, on any of `processors`.

    `compiling`: whether programs come without their code. `library`: `servers/fork.c`, compiled, which does the same as
    `in_python` below and costs less; or empty.
    """
    wait = None
    if library:
        with contextlib.suppress(
            OSError, AttributeError
        ):  # made for another machine, or where nothing may be executed
            wait = in_c(library, fd, processors)
    wait = wait or in_python(fd, processors)
    _get_warm(compiling)
    originals = [getattr(sys, name) for name in _STREAMS]
    blocks = sys.getallocatedblocks()
    status = 0
    names: dict[str, Any] = {}
    try:
        while (head := wait(names)) is not None:
            if head is True:
                program = names["__file__"]
                with open(program, "rb") as source:
                    code = compile(source.read(), program, "exec", dont_inherit=True)
                del source
                exec(code, names)  # noqa: S102 - the point of it all
                break
            if not head:
                return
            file, *env = head.split(b"\n", 2)[2].decode().split("\0")
            names = _get_ready_for(file, dict(one.split("=", 1) for one in env))
    except Exception:
        # As the interpreter does, for which the frames of the program are there until the end.
        sys.last_type, sys.last_value, sys.last_traceback = sys.exc_info()
        sys.excepthook(*sys.exc_info())
        status = 1
    with contextlib.suppress(Exception):  # no memory, or no frame, is left for it
        if _ends_quietly(originals, blocks):
            os._exit(status)
    # The interpreter takes all down, in its own order; nothing here may hold what would go early.
    if sys.excepthook is _without_our_frames:
        sys.excepthook = sys.__excepthook__
    gc.unfreeze()
    if status:
        sys.exit(status)


def _ends_quietly(originals: "list[Any]", blocks: int) -> bool:
    """Write out what was printed; whether nothing more would come of it if the interpreter took all down that there is.

    That costs more than half of what a short program does, so it is left to the kernel where no thread or exit function is left, and
    no object whose end does anything: files that are written out, generators, what has a `__del__`, weak references that call
    somebody. What was there before the fork is none of these, but for the standard streams (`originals`, themselves the first
    object after it). Where there is much (`blocks`: how much memory was in use before), to look through it would cost as much.
    """
    if (
        "threading" in sys.modules
        or atexit._ncallbacks()
        or sys.getallocatedblocks() - blocks > _MANY_BLOCKS
        or any(getattr(sys, name, None) is not own for name, own in zip(_STREAMS, originals, strict=True))
    ):
        return False
    objects = gc.get_objects()
    if id(originals) not in map(id, objects):  # the program has frozen what there is
        return False
    kinds = set(map(type, objects))
    if any(map(_has_an_end, kinds - _QUIET)):
        return False
    for one in objects if any(issubclass(kind, (type, weakref.ref)) for kind in kinds) else ():
        if issubclass(type(one), weakref.ref):
            if (callback := _CALLBACK(one)) is not None and not _is_of_abc(callback):
                return False
        # What the collector does not know of may be an object of such a class.
        elif issubclass(type(one), type) and not _FLAGS(one) & _COLLECTED and _has_an_end(one):
            return False
    try:
        for stream in originals[1:3]:
            stream.flush()
    except Exception:
        return False  # the interpreter tries it again, and tells
    return True


def _is_of_abc(callback: object) -> bool:
    """Whether this takes a class that is no more off the lists of an abstract one."""
    return type(callback) is types.BuiltinFunctionType and callback.__name__ == "_destroy"


def _has_an_end(kind: type) -> bool:
    """Whether the end of an object of this class may do something; of C functions, whether they may have printed."""
    return issubclass(kind, _C_FUNCTION) or any("__del__" in _DICT(base) for base in _MRO(kind))


def _get_warm(compiling: bool) -> None:
    """All that can be is done before the fork: each page that a child writes to, by a reference count for instance, is copied."""
    for name in WARM:
        __import__(name)
    if compiling:
        with open(__file__, "rb") as source:
            own = source.read()
        compile(own, __file__, "exec")  # what the compiler makes on first use costs a child 1 ms
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    sys.path[:] = ["", *(path for path in sys.path[1:] if path != root)]
    for name in [name for name in sys.modules if name.split(".")[0] == "sandbox"]:
        del sys.modules[name]
    sys.excepthook = _without_our_frames
    gc.collect()
    gc.freeze()  # the children share these objects' pages


def in_c(library: str, fd: int, processors: "set[int]") -> "Callable[[dict[str, Any]], bytes | bool | None]":
    """What serves until there is something to do here: see `serve` in `servers/fork.c`."""
    mask = sum(1 << processor for processor in processors)
    size = 8 * (mask.bit_length() // 64 + 1)
    found = ctypes.PyDLL(library).serve
    found.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.py_object)
    found.restype = ctypes.py_object
    return functools.partial(found, fd, mask.to_bytes(size, "little"), size)


def in_python(fd: int, processors: "set[int]") -> "Callable[[dict[str, Any]], bytes | bool | None]":
    """The same where there was no compiler for it."""
    from _socket import CMSG_LEN, socket  # not the module socket: it would be in every child
    from struct import unpack

    from sandbox.confine import confine, die_with_parent

    # As it does already; but a child's first such call costs 0.25 ms more where its parent made none.
    die_with_parent(os.getppid())
    server, own = socket(fileno=fd), os.getpid()
    head, message = b"", b""
    fds: tuple[int, ...] = ()

    def wait(names: "dict[str, Any]") -> "bytes | bool | None":
        nonlocal head, message, fds
        while True:
            if not message:
                message, received, _, _ = server.recvmsg(_LARGEST, CMSG_LEN(16))
                if not message:
                    return b""
                fds = unpack(f"{len(received[0][2]) // 4}i", received[0][2])
                if message.partition(b"\n")[2] != head:
                    head = message.partition(b"\n")[2]
                    return head
            pid = os.fork()
            if pid == 0:
                try:
                    limits = _enter(message, fds, processors)
                    confine(*limits, own)
                except Exception as error:  # ours, not the program's
                    server.send(f"failed {error!r}".encode())
                    os._exit(1)
                server.close()
                if len(fds) == 3:
                    return True
                code = marshal.loads(os.pread(fds[3], _LARGEST, 0))  # noqa: S302 - by `servers/compile.py`
                os.close(fds[3])
                exec(code, names)  # noqa: S102 - the point of it all
                return None
            for one in fds:
                os.close(one)
            message, ended, status = b"", 0, 0
            while ended != pid or os.WIFSTOPPED(status):  # see `serve` in `servers/fork.c`
                ended, status, used = os.wait4(-1, _WALL)
            seconds = used.ru_utime + used.ru_stime
            server.send(f"{status} {seconds} {used.ru_maxrss * 1024}".encode())

    return wait


def _enter(
    message: bytes, fds: "tuple[int, ...]", processors: "set[int]"
) -> "tuple[dict[int, tuple[int, int]], int | None]":
    """In a child: go where the program is to be; its limits and user."""
    for target, fd in enumerate(fds[:3]):
        os.dup2(fd, target)
        os.close(fd)
    with contextlib.suppress(OSError):  # it only costs time
        os.sched_setaffinity(0, processors)  # the parent is held to one
    user, limits, directory, _ = message.split(b"\n", 3)
    os.chdir(directory)
    numbers = list(map(int, limits.split()))
    rlimits = {numbers[at]: (numbers[at + 1], numbers[at + 2]) for at in range(0, len(numbers), 3)}
    return rlimits, None if user == b"-1" else int(user)


def _get_ready_for(program: str, env: "dict[str, str]") -> "dict[str, Any]":
    """Make this interpreter look as one that was started with `program`; the names of its module."""
    for name in os.environ.keys() - env.keys():
        del os.environ[name]
    for name, value in env.items():
        if os.environ.get(name) != value:
            os.environ[name] = value
    sys.argv[:] = [program]
    sys.path[0] = os.path.dirname(program)
    module = types.ModuleType("__main__")
    module.__dict__.update(__annotations__={}, __builtins__=builtins, __file__=program, __cached__=None)
    sys.modules["__main__"] = module
    return module.__dict__


def _without_our_frames(kind: type, error: BaseException, trace: "types.TracebackType | None") -> None:
    """The interpreter's own report, from the program's first frame on (a syntax error has none)."""
    frames = trace
    while frames:
        if frames.tb_frame.f_code.co_filename == __file__:
            trace = frames.tb_next
        frames = frames.tb_next
    sys.__excepthook__(kind, error.with_traceback(trace), trace)
