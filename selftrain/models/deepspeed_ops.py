"""Compiles the operator that DeepSpeed needs on CPU; a process killed while it compiles does not block the next one.

PyTorch locks a compilation by creating a lock file. A process that is killed while it compiles leaves this file behind, and the
next process waits for ever. So this module takes a kernel lock (flock) first, which the kernel releases when its holder dies. A
process that holds the flock and finds PyTorch's lock file knows that the file's owner is dead, and deletes the file.
"""

import fcntl
import os

from selftrain.store.artifact_cache import cache_folder


def start_distributed(device: str) -> None:
    """Start DeepSpeed's process group over the ranks that the launcher started."""
    import deepspeed

    build_operators()
    deepspeed.init_distributed(dist_backend="nccl" if device == "cuda" else "gloo", auto_mpi_discovery=False)


def build_operators() -> None:
    """Compile or load DeepSpeed's operator for communication on CPU. Call this before `deepspeed.init_distributed`.

    The operator is built in TORCH_EXTENSIONS_DIR; if this variable is not set, it is set to a folder of this project's cache.
    """
    import deepspeed
    from deepspeed.accelerator import get_accelerator

    folder = cache_folder() / "torch_extensions"
    os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(folder))
    builder = get_accelerator().create_op_builder("ShareMemCommBuilder")
    if builder is None or not deepspeed.ops.__compatible_ops__.get(builder.NAME, False):
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{builder.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        # PyTorch may build the operator in a subfolder.
        for left in folder.glob(f"**/{builder.name}/lock"):
            left.unlink()
        builder.load(verbose=False)
