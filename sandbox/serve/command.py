"""Runs the HTTP server of `python -m sandbox serve`."""

from sandbox.client import Sandbox
from sandbox.serve import connection
from sandbox.serve.app import application

TOKEN = "SANDBOX_TOKEN"  # noqa: S105 - the name of a variable
DRAIN_SECONDS = 5


def serve(sandbox: Sandbox, host: str, port: int, queue: int, audit: str) -> None:
    """Serve until SIGINT or SIGTERM. The bearer token, if any, comes from the environment variable SANDBOX_TOKEN."""
    app = application(sandbox, queue, connection.token_of(TOKEN), audit)
    connection.serve(app, host, port, DRAIN_SECONDS)
