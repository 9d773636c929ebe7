"""Checks that training fits into memory before it starts, from the headers of the weight files."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from selftrain.errors import UsageError
from selftrain.units import count_of

GIB = 1 << 30
ADVICE = (
    "lower runtime.processes, shard over more of them with runtime.deepspeed (ZeRO stage 3, or offload), "
    "train adapters (`lora`), or take a smaller model"
)


def count_parameters(folder: Path, layers: int | None = None) -> int:
    """Number of parameters in the safetensors files of `folder`, else in its GGUF files; 0 without such files.

    layers  as for `shapes.stored_parameters`
    """
    from selftrain.models.shapes import stored_parameters

    count = stored_parameters(folder, layers) or 0
    if count == 0:
        for path in sorted(folder.glob("*.gguf")):
            from gguf import GGUFReader

            count += sum(math.prod(map(int, tensor.shape)) for tensor in GGUFReader(path).tensors)
    return count


def tiny_parameters(model: Any) -> int:
    """Number of parameters of the Llama that `models.make_tiny` creates from the `ModelConfig` `model`."""
    width = model.hidden_size
    return model.vocabulary * width + model.layers * (13 * width * width + 2 * width) + width


def least_bytes(config: Any, inputs: Mapping[str, Path], runtime: Any) -> int:
    """A lower bound on the bytes that each training process needs; 0 where it is unknown.

    config  the config slice of a stage; the result is 0 unless the stage is sft, train_reward or ppo, and trains
    inputs  folders of the stage's input artifacts; the result is 0 where the model to train is not on this machine

    The memory of libraries is counted on GPUs only. On CPU, processes share most of it, and the kernel can evict it.
    """
    from selftrain.models.footprint import LIBRARIES, frozen_bytes, rank_bytes

    more = 0
    if settings := getattr(config, "ppo", None):
        parameters = count_parameters(inputs["generator"])
        # The reranker is counted like the generator below; it may have fewer layers, or more.
        if reranker := count_parameters(inputs["reranker"]):
            more = frozen_bytes(runtime) * (reranker - parameters)
    elif settings := getattr(config, "reward", None):
        # `start` is the model of an earlier stage; without it, training starts from `reward.base`.
        start = inputs["start"] if "start" in inputs else Path(settings.base or "")
        parameters = count_parameters(start, settings.layers)
    elif settings := getattr(config, "sft", None):
        if not settings.epochs:
            return 0  # the first process copies the pretrained model
        base = config.model.base
        parameters = count_parameters(Path(base)) if base else tiny_parameters(config.model)
    else:
        return 0
    shared = LIBRARIES["training"] if runtime.device == "cpu" else 0
    return rank_bytes(settings, parameters, runtime) - shared + more if parameters else 0


def check_memory(needs: int, runtime: Any) -> None:
    """On CPU: raise UsageError where `runtime.processes` processes of `needs` bytes do not fit into this machine's memory."""
    free = available_bytes()
    if runtime.device == "cpu" and free is not None and needs * runtime.processes > free:
        raise UsageError(
            f"{runtime.processes} training processes need at least {needs * runtime.processes / GIB:.1f} GiB of memory for "
            f"weights, gradients and optimizer ({needs / GIB:.1f} GiB each), and {free / GIB:.1f} GiB are free here; {ADVICE}"
        )


def check_gpu(needs: int, processes: int, local_rank: int) -> None:
    """Raise UsageError where there are fewer GPUs than `processes`, or GPU `local_rank` has fewer than `needs` bytes free."""
    import torch

    gpus = torch.cuda.device_count()
    if processes > gpus:
        raise UsageError(
            f"runtime.device is cuda and runtime.processes {processes}, and PyTorch sees {count_of(gpus, 'GPU')} here; expected one for "
            f"each process: " + (f"set runtime.processes to {gpus}" if gpus else "set runtime.device to cpu")
        )
    free, _ = torch.cuda.mem_get_info(local_rank)
    if needs > free:
        raise UsageError(
            f"a training process needs at least {needs / GIB:.1f} GiB of GPU memory for weights, gradients and optimizer, "
            f"and GPU {local_rank} has {free / GIB:.1f} GiB free; {ADVICE}"
        )


def available_bytes() -> int | None:
    """Bytes available to new processes on this machine and in this process's control group; None where /proc does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        groups = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    free = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    for line in groups:
        _, kinds, path = line.split(":", 2)
        if kinds == "":
            free += _group_free(Path("/sys/fs/cgroup"), path, "memory.max", "memory.current")
        elif kinds == "memory":
            names = "memory.limit_in_bytes", "memory.usage_in_bytes"
            free += _group_free(Path("/sys/fs/cgroup/memory"), path, *names)
    return min(free, default=None)


def _group_free(root: Path, path: str, limit: str, usage: str) -> Iterator[int]:
    """Free bytes of each control group from `path` up to `root`, one number per group; evictable page cache counts as free."""
    inside = root / path.strip("/")
    for group in (inside, *inside.parents):
        try:
            stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            cache = int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))
            yield int((group / limit).read_text()) - int((group / usage).read_text()) + cache
        except (OSError, ValueError):  # the group is not visible here, or its limit is `max`
            pass
        if group == root:
            return
