"""The operators that DeepSpeed compiles when they are first used, made so that a kill in the middle leaves no trap.

PyTorch's own lock for that is a file: a process that is killed while it compiles leaves it, and whoever comes next waits for
ever. Here the kernel's lock is around it, so that a file found under it is a dead process's.
"""

import fcntl
import os

from selftrain.store.store import cache_folder


def start_distributed(device: str) -> None:
    """DeepSpeed's process group over the ranks of the launcher."""
    import deepspeed

    build_operators()
    deepspeed.init_distributed(dist_backend="nccl" if device == "cuda" else "gloo", auto_mpi_discovery=False)


def build_operators() -> None:
    """Compile, or load, the operator that DeepSpeed's communication on CPU wants; before `init_distributed`.

    Nothing else loads it after that in this process. Elsewhere than in TORCH_EXTENSIONS_DIR it is in this project's own cache,
    where no other program compiles.
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
        ):  # in a folder of its own where the variable was not set
            left.unlink()
        builder.load(verbose=False)
