"""Connections of the HTTP server that end when a client is too slow, so that idle clients hold neither memory nor descriptors."""

import asyncio
import socket

from uvicorn.protocols.http.h11_impl import H11Protocol

SLOW_SECONDS = 60.0
"""A client has this long to send a whole request, and to read some more of its answer."""
MOST_CONNECTIONS = 4096
"""Connections at once; further ones are closed."""


class Connection(H11Protocol):
    """uvicorn's protocol with time limits. It also bounds the size of a request's headers (h11: 64 KiB)."""

    _late: asyncio.TimerHandle | None = None

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

    def handle_events(self) -> None:
        """Read what has arrived of a request."""
        super().handle_events()
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
