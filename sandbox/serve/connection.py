"""Connections of the HTTP server that end when a client is too slow, so that idle clients hold neither memory nor descriptors."""

import asyncio
import errno
import os
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
LAST_SECONDS = 2.0
"""When the server ends, a request that has come in part has this long to come whole, so that a slow client does not hold it up."""
MOST_CONNECTIONS = 4096
"""Connections at once; further ones are closed."""
MOST_HEAD_BYTES = 1 << 16
"""A client that sends more than this without completing its request's headers, or any of its body, is cut off (as h11 does)."""
_BOUNDED = not hasattr(Protocol, "on_headers_complete")


def listen(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen on `port` of each address of `host`. Raises UsageError where nobody can."""
    if not 0 <= port < 1 << 16:  # getaddrinfo would take it modulo 65536
        raise UsageError(f"--port: expected 0 to 65535, got {port}")
    sockets: list[socket.socket] = []
    try:
        for family, _, _, _, address in socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            try:
                sockets.append(socket.create_server(address[:2], family=family))
            except OSError as error:
                if error.errno != errno.EAFNOSUPPORT:  # a kernel without IPv6
                    raise
    except OSError as error:
        for each in sockets:
            each.close()
        raise UsageError(f"--host {host} --port {port}: cannot be listened on: {error.strerror}") from error
    return sockets


def check_free(host: str, port: int) -> None:
    """Raise UsageError where nobody can listen on `port` of `host`, which is better told before what is served is loaded."""
    for each in listen(host, port):
        each.close()


def token_of(variable: str) -> str | None:
    """The bearer token that an environment variable has; None: it is not set or empty. Blanks and line breaks around it do not
    count, which a file ends with and HTTP drops. Raises UsageError for one that not every client can send."""
    token = os.environ.get(variable, "").strip()
    if not token.isascii() or not token.isprintable():
        raise UsageError(f"{variable}: expected a token of visible ASCII characters, got others too")
    return token or None


def serve(
    app: Any, host: str, port: int, drain_seconds: int, sockets: list[socket.socket] | None = None
) -> None:
    """Serve a FastAPI application over such connections until SIGINT or SIGTERM, or until it calls `app.state.stop`, which this sets.

    drain_seconds  how long requests that were accepted have then to be answered
    sockets        listen on these, of `listen`, which other processes share; None: on sockets of its own
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
        server.run(sockets)
    if not server.started:
        sys.exit(STARTUP_FAILURE)


class Connection(Protocol):
    """uvicorn's protocol with time limits and a limit on the size of a request's headers. A request that offers to go on in another
    protocol, as Java's HTTP client offers HTTP/2 in each, is answered as one without the offer; uvicorn would lose its body."""

    _late: asyncio.TimerHandle | None = None
    _unused = 0  # bytes since the last that were a whole header or of a body
    _received = _left = b""  # what is being read, and what remains to be read

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the time limits."""
        super().connection_made(transport)
        # The kernel ends a connection whose client reads nothing.
        if sock := transport.get_extra_info("socket"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(SLOW_SECONDS * 1000))
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()
        self._time()

    def data_received(self, data: bytes) -> None:
        """Read what has arrived of a request."""
        self._unused += len(data)
        self._left = data
        while data := self._left:
            self._received, self._left = data, b""
            super().data_received(data)
        if self._unused > MOST_HEAD_BYTES and not _BOUNDED:
            self.transport.abort()
        self._time()

    def on_headers_complete(self) -> None:
        """Take a request's headers."""
        self._unused = 0
        if not self._offers():
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Take the end of a request."""
        if not self._offers():
            super().on_message_complete()

    def _offers(self) -> bool:
        """Whether the request that is being read offers another protocol. A CONNECT is one."""
        return self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"

    def _unsupported_upgrade_warning(self) -> None:
        """Read a request again without its offer. uvicorn calls this while it handles the parser's exception, whose argument is the
        number of bytes that were read: up to the request's body."""
        offer = sys.exception()
        if not offer or not self._offers():
            return
        version = self.parser.get_http_version().encode()
        line = b"%s %s HTTP/%s\r\n" % (self.parser.get_method(), self.url, version)
        kept = (b"%s: %s\r\n" % header for header in self.headers if header[0] != b"upgrade")
        self.parser = type(self.parser)(self)  # the old one reads nothing after `Connection: close`
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self._left = b"".join((line, *kept, b"\r\n", self._received[offer.args[0] :]))

    def on_body(self, body: bytes) -> None:
        """Take a part of a request's body."""
        self._unused = 0
        super().on_body(body)

    def on_response_complete(self) -> None:
        """Begin with the next request."""
        super().on_response_complete()
        self._time()

    def shutdown(self) -> None:
        """Go on only with a request that was accepted: the server ends."""
        super().shutdown()
        if self._late and not self.transport.is_closing():
            self._late.cancel()
            self._late = self.loop.call_later(LAST_SECONDS, self.transport.abort)

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
