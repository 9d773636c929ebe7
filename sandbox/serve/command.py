"""Runs the HTTP server of `python -m sandbox serve`."""

from sandbox.client import Sandbox
from sandbox.serve import connection
from sandbox.serve.app import application

TOKEN = "SANDBOX_TOKEN"  # noqa: S105 - the name of a variable
DRAIN_SECONDS = 5


def check(host: str, port: int) -> str | None:
    """The bearer token in the environment variable SANDBOX_TOKEN, if there is one. Raises UsageError for one that cannot be used, and
    where nobody can listen on `port` of `host`."""
    connection.check_free(host, port)
    return connection.token_of(TOKEN)


def serve(sandbox: Sandbox, host: str, port: int, queue: int, audit: str, token: str | None) -> None:
    """Serve until SIGINT or SIGTERM. `token`: what `check` gave."""
    app = application(sandbox, queue, token, audit)
    connection.serve(app, host, port, DRAIN_SECONDS)
