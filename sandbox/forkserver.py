"""A warm Python interpreter that forks one child per program, which costs a quarter of starting Python.

`sandbox.launch.ForkServer` starts this server with one end of a Unix socket that keeps message boundaries (SOCK_SEQPACKET).

A request comes from `sandbox.launch.Forked`. It begins with a line with the user id (-1: keep the user). The *head* follows,
which is the same for most programs: a line of resource limits, three numbers each; a line with the directory; the program's file
and its environment as NAME=VALUE, separated by NUL bytes. With the message come the descriptors of the program's stdin, stdout
and stderr, and, if the program is compiled already, of a file with its code.

The answer is `STATUS CPU_SECONDS MEMORY_BYTES` when the child has ended, or `failed WHY` if the child cannot be started.

The child runs the program as `python3 main.py` would: with a new `__main__`, in its own session, directory, environment, user and
limits. It inherits only the modules in `WARM`, which the parent has imported. Expected outputs and other programs' code are never
in this process. The runner kills the processes that a program leaves behind.
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
"""Modules that the server imports in advance, because most programs use them. It imports no others: memory of the parent costs
time in every child, and `random` would also reseed itself in each child."""
_LARGEST = 1 << 16
"""The most bytes of a request, and of a program's code; the same as in `servers/fork.c`."""
_WALL = 0x40000000  # __WALL of wait4(2): also children that are threads
_STREAMS = ("stdin", "stdout", "stderr", "__stdin__", "__stdout__", "__stderr__")
_MANY_BLOCKS = 500_000  # a program that allocates more memory blocks is finalized in the usual way
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
"""Types without a finalizer, to which most objects belong."""
_C_FUNCTION = ctypes.CFUNCTYPE(None).__mro__[1]
# Attributes read from `type` itself, because a class of the program may override them.
_DICT, _MRO, _FLAGS = (type.__dict__[name].__get__ for name in ("__dict__", "__mro__", "__flags__"))
_CALLBACK = weakref.ref.__dict__["__callback__"].__get__


def serve(fd: int, processors: "set[int]", compiling: bool, library: str) -> None:
    """Answer requests on socket `fd` until the runner closes its end. In each child, run the program, on any of `processors`.

    `compiling`: whether children have to compile their programs. `library`: the path of the compiled `servers/fork.c`, which does
    the same as `in_python` faster; empty if there is none.
    """
    wait = None
    if library:
        with contextlib.suppress(
            OSError, AttributeError
        ):  # built for another machine, or on a file system without execution
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
        # As the interpreter does. This keeps the program's frames alive until the end.
        sys.last_type, sys.last_value, sys.last_traceback = sys.exc_info()
        sys.excepthook(*sys.exc_info())
        status = 1
    with contextlib.suppress(Exception):  # no memory or stack left
        if _ends_quietly(originals, blocks):
            os._exit(status)
    # Now the interpreter finalizes all objects in its own order. No reference from this module may delay that.
    if sys.excepthook is _without_our_frames:
        sys.excepthook = sys.__excepthook__
    gc.unfreeze()
    if status:
        sys.exit(status)


def _ends_quietly(originals: "list[Any]", blocks: int) -> bool:
    """Flush the standard streams. Returns whether the interpreter's finalization would have no visible effect and can be skipped.

    Finalization costs more than half of a short program's time. It can be skipped if no thread and no exit function is left, and
    no object with a finalizer: open files, generators, objects with a `__del__`, weak references with a callback. Objects from
    before the fork have no finalizer, except the standard streams. They are in `originals`, a list created after `gc.freeze`.
    `blocks`: the number of allocated memory blocks before the program. If the program allocated very many, the search for such
    objects would cost as much as it saves, so the answer is False.
    """
    if (
        "threading" in sys.modules
        or atexit._ncallbacks()
        or sys.getallocatedblocks() - blocks > _MANY_BLOCKS
        or any(getattr(sys, name, None) is not own for name, own in zip(_STREAMS, originals, strict=True))
    ):
        return False
    objects = gc.get_objects()
    if id(originals) not in map(id, objects):  # the program has called gc.freeze
        return False
    kinds = set(map(type, objects))
    if any(map(_has_an_end, kinds - _QUIET)):
        return False
    for one in objects if any(issubclass(kind, (type, weakref.ref)) for kind in kinds) else ():
        if issubclass(type(one), weakref.ref):
            if (callback := _CALLBACK(one)) is not None and not _is_of_abc(callback):
                return False
        # Objects of a class that the garbage collector does not track are not in `objects`, so look at the class itself.
        elif issubclass(type(one), type) and not _FLAGS(one) & _COLLECTED and _has_an_end(one):
            return False
    try:
        for stream in originals[1:3]:
            stream.flush()
    except Exception:
        return False  # the interpreter tries again, and reports the failure
    return True


def _is_of_abc(callback: object) -> bool:
    """Whether a weak reference's callback only removes a dead class from the registry of an abstract base class."""
    return type(callback) is types.BuiltinFunctionType and callback.__name__ == "_destroy"


def _has_an_end(kind: type) -> bool:
    """Whether objects of this class have a finalizer. Also True for ctypes' C functions: output may be left in C's buffers."""
    return issubclass(kind, _C_FUNCTION) or any("__del__" in _DICT(base) for base in _MRO(kind))


def _get_warm(compiling: bool) -> None:
    """Do as much work as possible before the fork. Every page that a child writes to, if only a reference count, is copied."""
    for name in WARM:
        __import__(name)
    if compiling:
        with open(__file__, "rb") as source:
            own = source.read()
        compile(
            own, __file__, "exec"
        )  # the first use initializes Python's compiler, which would cost every child 1 ms
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    sys.path[:] = ["", *(path for path in sys.path[1:] if path != root)]
    for name in [name for name in sys.modules if name.split(".")[0] == "sandbox"]:
        del sys.modules[name]
    sys.excepthook = _without_our_frames
    gc.collect()
    gc.freeze()  # the children share these objects' pages


def in_c(library: str, fd: int, processors: "set[int]") -> "Callable[[dict[str, Any]], bytes | bool | None]":
    """The server's loop in C. It returns whenever there is work for Python; see `serve` in `servers/fork.c`."""
    mask = sum(1 << processor for processor in processors)
    size = 8 * (mask.bit_length() // 64 + 1)
    found = ctypes.PyDLL(library).serve
    found.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.py_object)
    found.restype = ctypes.py_object
    return functools.partial(found, fd, mask.to_bytes(size, "little"), size)


def in_python(fd: int, processors: "set[int]") -> "Callable[[dict[str, Any]], bytes | bool | None]":
    """The server's loop in Python, for machines where `servers/fork.c` cannot be compiled."""
    from _socket import CMSG_LEN, socket  # not the module `socket`: every child would inherit its memory
    from struct import unpack

    from sandbox.confine import confine, die_with_parent

    # `sandbox.launch` has set this already. But if the parent never calls it, a child's first call takes 0.25 ms longer.
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
                except Exception as error:  # a failure of the sandbox, not of the program
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
    """In a child: set up the program's streams, processors and directory. Returns its limits and its user id (None: keep)."""
    for target, fd in enumerate(fds[:3]):
        os.dup2(fd, target)
        os.close(fd)
    with contextlib.suppress(OSError):  # if this fails, the program is only slower
        os.sched_setaffinity(0, processors)  # the parent is pinned to one processor
    user, limits, directory, _ = message.split(b"\n", 3)
    os.chdir(directory)
    numbers = list(map(int, limits.split()))
    rlimits = {numbers[at]: (numbers[at + 1], numbers[at + 2]) for at in range(0, len(numbers), 3)}
    return rlimits, None if user == b"-1" else int(user)


def _get_ready_for(program: str, env: "dict[str, str]") -> "dict[str, Any]":
    """Make this interpreter look as if it had been started with `program`. Returns the namespace of the new `__main__`."""
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
    """Print the interpreter's traceback from the program's first frame on, without this module's frames. (A syntax error has no
    frames of the program.)"""
    frames = trace
    while frames:
        if frames.tb_frame.f_code.co_filename == __file__:
            trace = frames.tb_next
        frames = frames.tb_next
    sys.__excepthook__(kind, error.with_traceback(trace), trace)
