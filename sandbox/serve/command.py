"""Runs the HTTP server of `python -m sandbox serve`."""

import os
import resource

import uvicorn

from sandbox.client import Sandbox
from sandbox.serve.app import application
from sandbox.serve.connection import Connection

TOKEN = "SANDBOX_TOKEN"  # noqa: S105 - the name of a variable


def serve(sandbox: Sandbox, host: str, port: int, queue: int, audit: str) -> None:
    """Serve until SIGINT or SIGTERM. The bearer token, if any, comes from the environment variable SANDBOX_TOKEN."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a descriptor for each connection
    app = application(sandbox, queue, os.environ.get(TOKEN) or None, audit)
    uvicorn.run(
        app,
        host=host,
        port=port,
        http=Connection,
        ws="none",
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        timeout_graceful_shutdown=5,
    )
