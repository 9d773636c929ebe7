"""Runs the HTTP server of `selftrain serve`."""

import socket
import sys

from sandbox.serve import connection
from selftrain.errors import RunError
from selftrain.serve.app import application
from selftrain.serve.served import Source
from selftrain.serve.service import Limits
from selftrain.serve.workers import run_workers

TOKEN = "SELFTRAIN_TOKEN"  # noqa: S105 - the name of a variable
SWITCH_SECONDS = 0.0005
"""How long a thread keeps the interpreter while another waits. The scoring thread gives it up at each operation on tensors; with
Python's 5 ms it would wait for so long each time that a request is being read."""
DRAIN_SECONDS = 30
"""After SIGTERM, requests that were accepted have this long to be answered."""


def check(host: str, port: int) -> str | None:
    """The bearer token in the environment variable SELFTRAIN_TOKEN, if there is one. Raises UsageError for one that cannot be used,
    and where nobody can listen on `port` of `host`."""
    connection.check_free(host, port)
    return connection.token_of(TOKEN)


def serve(
    source: Source,
    limits: Limits,
    host: str,
    port: int,
    poll_seconds: float,
    token: str | None = None,
    workers: int = 1,
    cores: int = 0,
) -> None:
    """Serve until SIGINT or SIGTERM. `token`: what `check` gave; `workers`: number of processes, each with `limits`;
    `cores`: of each, where there are several.

    Raises RunError if a scoring thread, or one of several workers, ends by itself, since nothing could be answered any more: whoever
    started the process can start another.
    """
    sys.setswitchinterval(SWITCH_SECONDS)

    def work(sockets: list[socket.socket] | None = None) -> None:
        if cores:
            import torch

            torch.set_num_threads(cores)
        app = application(source, limits, token, poll_seconds)
        connection.serve(app, host, port, DRAIN_SECONDS, sockets)
        if broke := app.state.broke():
            raise RunError(f"the scoring thread has ended: {broke}")

    if workers == 1:
        work()
    else:
        run_workers(workers, work, connection.listen(host, port))
