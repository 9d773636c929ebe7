"""Runs a module as `python -m` does, but with the garbage collector off during imports; `child_main` turns it on again.

Imports create no garbage, and garbage collection during imports took a fifth of a training stage's start-up time.

    python -m selftrain.launch.child selftrain.training.sft resolved.json
"""

import gc
import runpy
import sys

if __name__ == "__main__":
    gc.disable()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
