"""A warm Python interpreter that forks one child per program, which costs a quarter of starting Python.

`sandbox.launch.ForkServer` starts this server with one end of a Unix socket that keeps message boundaries (SOCK_SEQPACKET).

A request comes from `sandbox.launch.Forked`; `servers/child.h` describes it, and the answer. Its further text is the program's file
name and its environment as NAME=VALUE, separated by NUL bytes, and its last descriptor that of a file with the program itself
(`get_code` in `servers/fork.c`). The file of that name does not have to exist. The head is the same for most programs.

The child runs the program as `python3 main.py` would: with a new `__main__`, without frames below it, in its own session,
directory, environment, user and limits. Modules that the server has imported are on a shelf (`sandbox.shelf`) until the program
imports them. Expected outputs and other programs' code are never in this process. The runner kills the processes that a program
leaves behind.
"""

import atexit
import builtins
import ctypes
import gc
import os
import sys
import types
import weakref
from _frozen_importlib_external import SourceFileLoader

from sandbox.shelf import Shelf

WARM = (
    "bisect", "collections", "copy", "functools", "heapq", "itertools", "math", "operator", "re", "string", "typing",
)  # fmt: skip
"""Modules that the server imports in advance, because most programs use them. It imports no others: memory of the parent costs
time in every child, and `random` would also reseed itself in each child."""
_STREAMS = ("stdin", "stdout", "stderr", "__stdin__", "__stdout__", "__stderr__")
_MANY_BLOCKS = 500_000  # a program that allocates more memory blocks is finalized in the usual way
_COLLECTED = 1 << 14  # Py_TPFLAGS_HAVE_GC
_QUIET = frozenset((
    tuple, list, dict, set, type, weakref.ref, types.FunctionType, types.BuiltinFunctionType, types.ModuleType,
))  # fmt: skip
"""Types without a finalizer, to which most objects belong."""
# Attributes read from `type` itself, because a class of the program may override them.
_DICT, _MRO, _FLAGS = (type.__dict__[name].__get__ for name in ("__dict__", "__mro__", "__flags__"))
_CALLBACK = weakref.ref.__dict__["__callback__"].__get__


def start(fd: int, processors: "set[int]", compiling: bool, library: str, shelf: Shelf) -> None:
    """Have the interpreter answer requests on socket `fd` when this module's caller has ended, until the runner closes its end.
    In each child, run the program, on any of `processors`.

    `compiling`: whether children have to compile their programs. `library`: the path of the compiled `servers/fork.c`, with the
    server's loop. `shelf`: where this process's modules go.
    """
    mask = sum(1 << processor for processor in processors)
    size = 8 * (mask.bit_length() // 64 + 1)
    serve = ctypes.PyDLL(library).serve
    serve.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.py_object, ctypes.py_object)
    serve.restype = None
    streams = [weakref.ref(getattr(sys, name)) for name in _STREAMS]
    _get_warm(compiling, shelf)
    after: list[object] = []  # an object from after `gc.freeze`
    blocks = sys.getallocatedblocks()

    def at_end(status: int) -> None:
        if _ends_quietly(streams, after, blocks):
            os._exit(status)
        # Now the interpreter finalizes all objects in its own order. No reference from here may delay that.
        shelf.drop()
        gc.unfreeze()

    # The interpreter calls exit functions when no Python frame is left.
    atexit.register(serve, fd, mask.to_bytes(size, "little"), size, _get_ready, at_end)


def _ends_quietly(streams: "list[weakref.ref[object]]", after: "list[object]", blocks: int) -> bool:
    """Flush the standard streams. Returns whether the interpreter's finalization would have no visible effect and can be skipped.

    Finalization costs more than half of a short program's time. It can be skipped if no thread and no exit function is left, and
    no object with a finalizer: open files, generators, objects with a `__del__`, weak references with a callback. Objects from
    before the fork have no finalizer, except the standard `streams`. `after`: an object created after `gc.freeze`.
    `blocks`: the number of allocated memory blocks before the program. If the program allocated very many, the search for such
    objects would cost as much as it saves, so the answer is False.
    """
    if (
        "threading" in sys.modules
        or "_ctypes" in sys.modules  # output may be left in C's buffers
        or atexit._ncallbacks()
        or sys.getallocatedblocks() - blocks > _MANY_BLOCKS
        or any(getattr(sys, name, None) is not own() for name, own in zip(_STREAMS, streams, strict=True))
    ):
        return False
    objects = gc.get_objects()
    if id(after) not in map(id, objects):  # the program has called gc.freeze
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
        for stream in streams[1:3]:
            stream().flush()  # type: ignore[attr-defined]
    except Exception:
        return False  # the interpreter tries again, and reports the failure
    return True


def _is_of_abc(callback: object) -> bool:
    """Whether a weak reference's callback only removes a dead class from the registry of an abstract base class."""
    return type(callback) is types.BuiltinFunctionType and callback.__name__ == "_destroy"


def _has_an_end(kind: type) -> bool:
    """Whether objects of this class have a finalizer."""
    return any("__del__" in _DICT(base) for base in _MRO(kind))


def _get_warm(compiling: bool, shelf: Shelf) -> None:
    """Do as much work as possible before the fork. Every page that a child writes to, if only a reference count, is copied."""
    for name in WARM:
        __import__(name)
    if compiling:
        with open(__file__, "rb") as source:
            own = source.read()
        # The first use initializes Python's compiler, which would cost every child 1 ms.
        compile(own, __file__, "exec")
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    sys.path[:] = ["", *(path for path in sys.path[1:] if path != root)]
    shelf.close()
    gc.collect()
    gc.freeze()  # the children share these objects' pages


def _get_ready(head: bytes) -> "dict[str, object]":
    """Make this interpreter look as if it had been started with the program of a request with this `head`. Returns the names of
    the new `__main__`."""
    atexit._clear()
    program, *lines = head.split(b"\n", 2)[2].decode().split("\0")
    env = dict(one.split("=", 1) for one in lines)
    for name in os.environ.keys() - env.keys():
        del os.environ[name]
    for name, value in env.items():
        if os.environ.get(name) != value:
            os.environ[name] = value
    sys.argv[:] = [program]
    sys.orig_argv[:] = ["python3", program]
    sys.path[0] = os.path.dirname(program)
    module = types.ModuleType("__main__")
    loader = SourceFileLoader("__main__", program)
    module.__dict__.update(
        __annotations__={}, __builtins__=builtins, __file__=program, __cached__=None, __loader__=loader
    )
    sys.modules["__main__"] = module
    return module.__dict__
