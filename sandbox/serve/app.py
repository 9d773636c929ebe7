"""The HTTP application, which serves all APIs from one `Service`, with a bearer token, a body limit, /health and /metrics."""

import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sandbox.client import Sandbox
from sandbox.serve import fusion, native, open_instruct, piston
from sandbox.serve.service import Service

BODY_BYTES = 16 << 20
"""The largest body of a request."""
OPEN = ("/health", "/v1/ping")
"""Paths that clients may request without the token."""


def application(sandbox: Sandbox, queue: int, token: str | None = None) -> FastAPI:
    """The HTTP application, which closes `sandbox` when it ends. `token`: the bearer token; None: everyone who can reach the port
    may run programs."""
    service = Service(sandbox, queue)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        yield
        sandbox.close()
        service.close()

    app = FastAPI(title="Sandbox", description="Judges untrusted programs.", lifespan=life)
    for dialect in (native, fusion, piston, open_instruct):
        app.include_router(dialect.router(service))

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "healthy"}

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    app.add_middleware(Guard, token=token, body_bytes=BODY_BYTES)
    return app


class Guard:
    """Middleware that answers 401 to a request without the token, and 413 to one whose body is over the limit, even if its
    Content-Length is wrong or missing."""

    def __init__(self, app: ASGIApp, token: str | None, body_bytes: int) -> None:
        self.app, self.token, self.body_bytes = app, token, body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        expected = f"Bearer {self.token}".encode()
        if (
            self.token
            and scope["path"] not in OPEN
            and not hmac.compare_digest(headers.get(b"authorization", b""), expected)
        ):
            said = {"detail": "expected the header Authorization: Bearer TOKEN"}
            await JSONResponse(said, 401, {"WWW-Authenticate": "Bearer"})(scope, receive, send)
            return
        read, answered = 0, False
        stated = int(headers.get(b"content-length", b"0"))

        def over() -> bool:
            return max(read, stated) > self.body_bytes

        async def refuse() -> None:
            nonlocal answered
            answered = True
            said = {"detail": f"the body is larger than allowed: {self.body_bytes} bytes"}
            await JSONResponse(said, 413, {"Connection": "close"})(scope, receive, send)

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if over():
                raise OSError("the body is too large")
            return message

        async def replaced(message: Message) -> None:
            """Send a message of the application's answer; if the body is over the limit, send 413 instead."""
            if over() and not answered:
                await refuse()
            elif not over():
                await send(message)

        if over():
            await refuse()
        else:
            await self.app(scope, counted, replaced)
