"""Backend `process`, which isolates nothing: programs are children of the worker with resource limits.

Use it only for programs that you wrote, or that a model trained on nothing but your programs wrote.
"""

import logging
import sys

log = logging.getLogger(__name__)

NAME = "process"


def command() -> tuple[str, ...]:
    """The command that starts a worker process. Logs a warning."""
    log.warning("sandbox backend 'process' isolates nothing: programs may read files and use the network")
    return (sys.executable, "-m", "sandbox.runner", NAME)
