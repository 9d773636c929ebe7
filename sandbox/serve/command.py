"""Runs the HTTP server of `python -m sandbox serve`."""

import os

import uvicorn

from sandbox.client import Sandbox
from sandbox.serve.app import application

TOKEN = "SANDBOX_TOKEN"  # noqa: S105 - the name of a variable


def serve(sandbox: Sandbox, host: str, port: int, queue: int) -> None:
    """Serve until SIGINT or SIGTERM. The bearer token, if any, comes from the environment variable SANDBOX_TOKEN."""
    app = application(sandbox, queue, os.environ.get(TOKEN) or None)
    uvicorn.run(app, host=host, port=port, log_level="warning", access_log=False, timeout_graceful_shutdown=5)
