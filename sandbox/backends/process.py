"""No isolation: programs are children of the worker, under resource limits only.

Good for programs that one wrote oneself, or that a model wrote which has seen nothing else.
"""

import logging
import sys

log = logging.getLogger(__name__)

NAME = "process"


def command() -> tuple[str, ...]:
    """How to start a worker process. Logs a warning."""
    log.warning("sandbox backend 'process' isolates nothing: programs may read files and use the network")
    return (sys.executable, "-m", "sandbox.runner", NAME)
