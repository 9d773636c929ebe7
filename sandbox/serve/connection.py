"""Connections of the HTTP server that end when a client is too slow, so that idle clients hold neither memory nor descriptors."""

import asyncio
import errno
import resource
import socket
import sys
from contextlib import suppress
from typing import Any

import uvicorn
from uvicorn.main import STARTUP_FAILURE

from sandbox.errors import UsageError

try:  # a parser in C, which takes a third of the time
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as Protocol
except ImportError:
    from uvicorn.protocols.http.h11_impl import H11Protocol as Protocol  # type: ignore[assignment]

SLOW_SECONDS = 60.0
"""A client has this long to send a whole request, and to read some more of its answer."""
MOST_CONNECTIONS = 4096
"""Connections at once; further ones are closed."""
MOST_HEAD_BYTES = 1 << 16
"""A client that sends more than this without completing its request's headers, or any of its body, is cut off (as h11 does)."""
_BOUNDED = not hasattr(Protocol, "on_headers_complete")


def check_free(host: str, port: int) -> None:
    """Raise UsageError where nobody can listen on `port` of `host`, which is better told before what is served is loaded."""
    try:
        for family, _, _, _, address in socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            try:
                socket.create_server(address[:2], family=family).close()
            except OSError as error:
                if error.errno != errno.EAFNOSUPPORT:  # the server leaves out what the kernel does not have
                    raise
    except OSError as error:
        raise UsageError(f"--host {host} --port {port}: cannot be listened on: {error.strerror}") from error


def serve(app: Any, host: str, port: int, drain_seconds: int) -> None:
    """Serve a FastAPI application over such connections until SIGINT or SIGTERM, or until it calls `app.state.stop`, which this sets.

    drain_seconds  how long requests that were accepted have then to be answered
    """
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a descriptor for each connection
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=Connection,
        ws="none",
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        timeout_graceful_shutdown=drain_seconds,
    )
    server = uvicorn.Server(config)
    app.state.stop = lambda: setattr(server, "should_exit", True)
    with suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        sys.exit(STARTUP_FAILURE)


class Connection(Protocol):
    """uvicorn's protocol with time limits and a limit on the size of a request's headers."""

    _late: asyncio.TimerHandle | None = None
    _unused = 0  # bytes since the last that were a whole header or of a body

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the time limits."""
        super().connection_made(transport)
        if sock := transport.get_extra_info(
            "socket"
        ):  # the kernel ends a connection whose client reads nothing
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(SLOW_SECONDS * 1000))
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()
        self._time()

    def data_received(self, data: bytes) -> None:
        """Read what has arrived of a request."""
        self._unused += len(data)
        super().data_received(data)
        if self._unused > MOST_HEAD_BYTES and not _BOUNDED:
            self.transport.abort()
        self._time()

    def on_headers_complete(self) -> None:
        """Take a request's headers."""
        self._unused = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of a request's body."""
        self._unused = 0
        super().on_body(body)

    def on_response_complete(self) -> None:
        """Begin with the next request."""
        super().on_response_complete()
        self._time()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the time limits."""
        super().connection_lost(exc)
        if self._late:
            self._late.cancel()

    def _time(self) -> None:
        """Start the clock when the client has something left to send, and stop it when the request is complete."""
        incomplete = self.cycle is None or self.cycle.response_complete or self.cycle.more_body
        if incomplete and not self._late:
            self._late = self.loop.call_later(SLOW_SECONDS, self.transport.abort)
        elif not incomplete and self._late:
            self._late.cancel()
            self._late = None
