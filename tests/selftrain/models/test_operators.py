"""Tests that a lock of DeepSpeed's compiled operators, left by a killed process, blocks nobody."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command import ROOT


@pytest.mark.parametrize("below", [".", "py"], ids=["the-variable-set", "not-set"])
def test_a_lock_that_a_killed_process_left_is_no_trap(tmp_path: Path, below: str):
    """PyTorch puts a folder for Python's version between, but not where TORCH_EXTENSIONS_DIR says where."""
    name = "deepspeed_shm_comm"
    extensions = tmp_path / "selftrain" / "torch_extensions"
    left = extensions / below / name / "lock"
    left.parent.mkdir(parents=True)
    left.touch()
    code = f"""
import os
os.environ.pop("TORCH_EXTENSIONS_DIR", None)
from deepspeed.ops.op_builder import builder
loaded = []
builder.OpBuilder.load = lambda self, verbose=True: loaded.append(self.name)
from selftrain.models.deepspeed_ops import build_operators
build_operators()
assert loaded == [{name!r}], loaded
assert os.environ["TORCH_EXTENSIONS_DIR"] == {str(extensions)!r}
"""
    environment = os.environ | {
        "XDG_CACHE_HOME": str(tmp_path),
        "PYTHONPATH": str(ROOT),
        "DS_ACCELERATOR": "cpu",
        "CUDA_VISIBLE_DEVICES": "",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert not left.exists()
