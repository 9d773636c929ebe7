"""Builds stage contexts for tests that call a stage directly."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from selftrain.config import RuntimeConfig
from selftrain.stage import Context
from tasks.sandbox import sandbox_at_work


def judging(
    config: Any,
    inputs: Mapping[str, Path],
    folder: Path,
    runtime: RuntimeConfig,
    progress: Callable[..., None] = lambda *_, **__: None,
    **more: Any,
) -> Context:
    """A context with the sandbox of `runtime`."""
    sandbox = partial(sandbox_at_work, runtime)
    return Context(config, inputs, folder, runtime, progress, sandbox=sandbox, **more)
