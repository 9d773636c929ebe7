"""Chooses a backend by its name: how the programs of a sandbox are isolated."""

from collections.abc import Callable
from typing import Literal, get_args

from sandbox.backends import bubblewrap, docker, process
from sandbox.channel import Channel, Pipe
from sandbox.errors import BackendUnavailable, UsageError

Backend = Literal["auto", "docker", "bubblewrap", "process"]

_REMEDY = (
    "install bubblewrap (Debian, Ubuntu: apt-get install bubblewrap), "
    "or name backend 'process' for programs that you trust"
)


def choose(backend: str, docker_runtime: str | None, patience: float) -> tuple[str, Callable[[str], Channel]]:
    """The name of the chosen backend, and a function that starts a worker for a given image. Raises `BackendUnavailable`,
    `UsageError`."""
    if backend == process.NAME:
        return backend, _piped(process.command())
    if backend == bubblewrap.NAME:
        return backend, _piped(bubblewrap.command())
    if backend == docker.NAME:
        docker.image_digest(docker.connect(patience))
        return backend, docker.starter(docker_runtime)
    if backend != "auto":
        raise UsageError(f"unknown sandbox backend {backend!r}; known: {', '.join(get_args(Backend))}")
    reasons = []
    for name in (docker.NAME, bubblewrap.NAME):
        try:
            return choose(name, docker_runtime, patience)
        except BackendUnavailable as error:
            reasons.append(str(error))
    raise BackendUnavailable(f"no sandbox backend on this machine: {'; '.join(reasons)}; {_REMEDY}")


def _piped(command: tuple[str, ...]) -> Callable[[str], Channel]:
    """A function that starts a worker process with `command`, whatever the image: without Docker, the tools are the machine's."""
    return lambda _: Pipe(command)
