"""Opens the configured sandbox: for a run's keys, and for its stages, which get it through their `Context`."""

from collections.abc import Iterator
from contextlib import contextmanager

from sandbox.client import Sandbox
from sandbox.errors import BackendUnavailable, SandboxError
from selftrain.config import RuntimeConfig
from selftrain.errors import SandboxFailed, UsageError
from selftrain.stop import current

DAEMON_SECONDS = 60.0
"""Longest wait for a Docker daemon at the start of a run."""


def open_sandbox(runtime: RuntimeConfig) -> Sandbox:
    """Open the configured sandbox, whose identity enters cache keys. Raises `UsageError` if it cannot be opened.

    This waits for a Docker daemon that restarts, because falling back to another backend would change every key.
    """
    try:
        return _sandbox(runtime, DAEMON_SECONDS)
    except SandboxError as error:
        raise UsageError(str(error)) from error


@contextmanager
def sandbox_at_work(runtime: RuntimeConfig) -> Iterator[Sandbox]:
    """Open the configured sandbox for a stage. Raises SandboxFailed, which is retried, if the sandbox is gone.

    The run has opened the same sandbox at its start, so its daemon may come back. It is closed early if the step has to end.
    """
    try:
        with _sandbox(runtime) as sandbox, current().calling(sandbox.hang_up):
            yield sandbox
    except BackendUnavailable as error:
        raise SandboxFailed(f"the sandbox is gone; what it judged is kept. {error}") from error


def _sandbox(runtime: RuntimeConfig, patience: float = 0.0) -> Sandbox:
    return Sandbox(
        runtime.backend,
        workers=runtime.workers,
        docker_runtime=runtime.docker_runtime,
        patience=patience,
    )
