"""Runs one Python program in this process, without a file: `python3 -c THIS LIBRARY FD NAME`.

LIBRARY is the compiled `fork.c`, FD a file descriptor with the program (`get_code` there), NAME the program's file name.
"""

import sys

fresh = {*sys.modules}

import atexit  # noqa: E402 - what a new interpreter has imported must be known before
import builtins  # noqa: E402
import ctypes  # noqa: E402
from _frozen_importlib_external import SourceFileLoader  # noqa: E402

_, library, fd, name = sys.argv


def get_ready() -> "dict[str, object]":
    """Make this interpreter look as if it had been started with the program. Returns the names of the new `__main__`."""
    atexit._clear()
    for module in sys.modules.keys() - fresh:
        del sys.modules[module]
    sys.argv[:] = [name]
    sys.orig_argv[:] = ["python3", name]
    sys.path[0] = name.rpartition("/")[0]
    main = sys.modules["__main__"] = type(sys)("__main__")
    loader = SourceFileLoader("__main__", name)
    main.__dict__.update(
        __annotations__={}, __builtins__=builtins, __file__=name, __cached__=None, __loader__=loader
    )
    return main.__dict__


run = ctypes.PyDLL(library).once
run.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.py_object, ctypes.py_object)
run.restype = None
# The interpreter calls exit functions when no Python frame is left.
atexit.register(run, int(fd), name.encode(), get_ready, lambda status: None)
