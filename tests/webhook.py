"""A webhook that accepts and keeps every request, as a context manager."""

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

SECRET = "planted-in-the-path-of-the-webhook"


@dataclass
class Webhook:
    """A webhook's address and the requests that it received."""

    url: str
    told: list[dict[str, Any]] = field(default_factory=list)

    def events(self, text: str) -> list[str]:
        """The events whose text contains `text`."""
        return [row["event"] for row in self.told if text in row["text"]]


@contextmanager
def listening() -> Iterator[Webhook]:
    """A running webhook."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            """Store the request."""
            hook.told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hook = Webhook(f"http://127.0.0.1:{server.server_port}/{SECRET}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield hook
        server.shutdown()
