"""Compiles the operators that DeepSpeed needs, safely against kills.

PyTorch locks a compilation by creating a file. A process that is killed while it compiles leaves that file, and the next one
waits for ever. Here a kernel lock (flock) is taken first, so a lock file found under it belongs to a dead process.
"""

import fcntl
import os

from selftrain.store.artifact_cache import cache_folder


def start_distributed(device: str) -> None:
    """Start DeepSpeed's process group over the launcher's ranks."""
    import deepspeed

    build_operators()
    deepspeed.init_distributed(dist_backend="nccl" if device == "cuda" else "gloo", auto_mpi_discovery=False)


def build_operators() -> None:
    """Compile or load the operator of DeepSpeed's communication on CPU; call it before `init_distributed`.

    It is built in TORCH_EXTENSIONS_DIR, which is set to this project's cache unless it is set already.
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
        for left in folder.glob(
            f"**/{builder.name}/lock"
        ):  # in a subfolder where the variable was not set before
            left.unlink()
        builder.load(verbose=False)
