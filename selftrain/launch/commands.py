"""Builds the command lines and environment variables of training processes."""

import importlib.util
import os
import platform
import re
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

from selftrain.errors import UsageError

RENDEZVOUS_SECONDS = 300
"""Seconds that torchrun waits for the ranks of all nodes to start."""
CHILD = "selftrain.launch.child"
"""Module that runs a child's module."""
ALIVE = "SELFTRAIN_ALIVE"
"""Environment variable with the path of the parent's heartbeat file, for ranks whose stdin is not a pipe from the parent."""


def torchrun(module: str, resolved: Path, runtime: Any, node: int = 0, job: str = "") -> list[str]:
    """Torchrun's command line on one node.

    node  number of this node, 0 for the first
    job   id of this attempt at the stage, the same on all nodes

    Raises UsageError where `runtime.rendezvous` is not HOST:PORT.
    """
    where = ["--standalone"]
    if runtime.nodes > 1:
        host, port = _host_and_port(runtime.rendezvous)
        where = [
            f"--nnodes={runtime.nodes}",
            f"--node-rank={node}",
            f"--master-addr={host}",
            f"--master-port={port}",
            f"--rdzv-id={job}",
            f"--rdzv-conf=timeout={RENDEZVOUS_SECONDS}",
        ]
    how = [
        f"--nproc-per-node={runtime.processes}",
        f"--log-dir={resolved.parent / 'torchrun'}",  # else torchrun leaves empty folders in /tmp
    ]
    return [sys.executable, "-m", "torch.distributed.run", *where, *how, "-m", CHILD, module, str(resolved)]


def deepspeed(module: str, resolved: Path, runtime: Any) -> list[str]:
    """The command line of DeepSpeed's launcher: `runtime.processes` ranks on each of the first `runtime.nodes` hosts in
    `runtime.hostfile`.

    Raises UsageError where the hostfile has too few hosts or slots, or where pdsh is needed and not installed: DeepSpeed uses it
    to start ranks on other machines.
    """
    path = Path(runtime.hostfile)
    hosts = read_hostfile(path)
    chosen = list(hosts)[: runtime.nodes]
    if len(hosts) < runtime.nodes or any(hosts[host] < runtime.processes for host in chosen):
        raise UsageError(
            f"runtime.hostfile: {path} has {', '.join(f'{host} slots={n}' for host, n in hosts.items())}; expected "
            f"runtime.nodes={runtime.nodes} hosts with runtime.processes={runtime.processes} slots each"
        )
    if runtime.rendezvous:
        host, port = _host_and_port(runtime.rendezvous)
        where = [f"--master_addr={host}", f"--master_port={port}"]
    elif runtime.nodes == 1:
        where = ["--master_addr=127.0.0.1", f"--master_port={_free_port()}"]
    else:
        where = []  # DeepSpeed asks the first host for the address, by ssh
    if runtime.nodes == 1:
        where.append("--no_ssh_check")  # the only node is this machine
    elif shutil.which("pdsh") is None:
        raise UsageError(
            "runtime.launcher deepspeed starts ranks on other machines through pdsh, which is not installed here; "
            "install it (Debian: pdsh), or use runtime.launcher torchrun and `selftrain node`"
        )
    return [
        *(sys.executable, "-m", "deepspeed.launcher.runner", f"--hostfile={path}"),
        *(f"--num_nodes={runtime.nodes}", f"--num_gpus={runtime.processes}", *where),
        *("--no_local_rank", "--module", CHILD, module, str(resolved)),
    ]


def read_hostfile(path: Path) -> dict[str, int]:
    """Read DeepSpeed's hostfile: {host: slots}, in the file's order. Raises UsageError with the number of an invalid line."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"runtime.hostfile: {path} cannot be read: {error}") from error
    hosts: dict[str, int] = {}
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith("#"):
            continue
        found = re.match(r"(\S+)\s+slots=([1-9]\d*)$", line)
        if found is None or found[1] in hosts:
            raise UsageError(f"{path}:{number}: expected `HOST slots=GPUS`, each host once, got {line!r}")
        hosts[found[1]] = int(found[2])
    if not hosts:
        raise UsageError(f"{path}: expected lines `HOST slots=GPUS`, got none")
    return hosts


def need_deepspeed(runtime: Any) -> None:
    """Raise UsageError where the config asks for DeepSpeed and DeepSpeed is not installed."""
    asked = [
        setting
        for setting, wanted in (
            ("runtime.deepspeed is set", runtime.deepspeed),
            ("runtime.launcher is deepspeed", runtime.launcher == "deepspeed"),
            ("runtime.scoring_shards is true", runtime.scoring_shards),
        )
        if wanted
    ]
    if asked and importlib.util.find_spec("deepspeed") is None:
        raise UsageError(
            f"{' and '.join(asked)} but deepspeed is not installed; `pip install deepspeed`, or set runtime.deepspeed to "
            "null, runtime.launcher to torchrun and runtime.scoring_shards to false"
        )


KEPT_MEMORY = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
"""glibc's settings with which a process keeps large blocks that it frees. By default it returns large tensors to the kernel, which has
to clear the pages of the next ones: up to a quarter of the time of sampling on CPUs."""


def kept_bytes(libc: str) -> int:
    """The largest block that a process keeps; `libc`: name and version, such as `glibc 2.36`.

    Older versions refuse a first setting above 32 MiB, and with the second alone they would return all blocks from 128 KiB on.
    """
    version = [int(part) for part in re.findall(r"\d+", libc)]
    return 1 << 30 if version >= [2, 36] else 1 << 25


def environment(runtime: Any) -> dict[str, str]:
    """Environment variables to add for training processes. Every node calls this, with the same `runtime`."""
    own = {
        "OMP_NUM_THREADS": str(runtime.threads),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONSAFEPATH": "1",  # do not import modules from the current folder
        "PYTHONPATH": os.pathsep.join(
            p for p in [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")] if p
        ),
    }
    if runtime.device == "cpu":
        own |= {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
        kept = str(kept_bytes(" ".join(platform.libc_ver())))
        own |= {name: os.environ.get(name, kept) for name in KEPT_MEMORY}
        if not runtime.deepspeed:  # with this variable, accelerate would use DDP instead of DeepSpeed
            own["ACCELERATE_USE_CPU"] = "true"
    if runtime.interface:  # this machine's own variables take precedence: its interface may have another name
        names = "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"
        own |= {name: os.environ.get(name, runtime.interface) for name in names}
    return own


def deepspeed_env_file(path: Path, variables: dict[str, str]) -> dict[str, str]:
    """Write the file of variables that DeepSpeed's launcher exports to all nodes; returns {"DS_ENV_FILE": path of this file}.

    The file also has the lines of the user's own file (`.deepspeed_env`). No credentials are added: each node has its own.
    """
    name = os.environ.get("DS_ENV_FILE", ".deepspeed_env")
    own = [place / name for place in (Path.home(), Path.cwd())]
    lines = [line for file in own if file.is_file() for line in file.read_text().splitlines() if "=" in line]
    lines += [f"{name}={value}" for name, value in variables.items()]
    path.write_text("".join(f"{line}\n" for line in lines))
    return {"DS_ENV_FILE": str(path.resolve())}


def _host_and_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise UsageError(f"runtime.rendezvous: expected HOST:PORT, such as 10.0.0.1:29500, got {text!r}")
    return host.strip("[]"), int(port)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
