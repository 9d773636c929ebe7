"""The HTTP application, which serves all APIs from one `Service`, with a bearer token, a body limit, /health and /metrics."""

import hmac
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sandbox.client import Sandbox
from sandbox.serve import fusion, native, open_instruct, piston
from sandbox.serve.bodies import REFUSALS, answer_refusals
from sandbox.serve.metrics import Metrics
from sandbox.serve.service import RETRY_AFTER_SECONDS, Service

BODY_BYTES, HELD_BYTES = 16 << 20, 512 << 20
"""The largest body of a request, and the most that the bodies of all requests that are being served may have together."""
OPEN = ("/health", "/v1/ping")
"""Paths that clients may request without the token."""


def application(sandbox: Sandbox, queue: int, token: str | None = None, audit: str = "off") -> FastAPI:
    """The HTTP application, which closes `sandbox` when it ends. `token`: the bearer token; None: everyone who can reach the port
    may run programs. `audit`: which programs with tests are audited, a rule of `sandbox.twin.chosen`."""
    service = Service(sandbox, queue, audit)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        yield
        sandbox.close()
        service.close()

    app = FastAPI(title="Sandbox", description="Judges untrusted programs.", lifespan=life)
    for router in (native.router, fusion.router, piston.router, open_instruct.router):
        app.include_router(router(service))
    answer_refusals(app, piston.PREFIX)

    @app.get("/health")
    async def health() -> Health:
        return Health(status="healthy")

    @app.get("/metrics", response_class=PlainTextResponse, responses={401: REFUSALS[401]})
    async def metrics() -> Response:
        return Response(service.metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app.add_middleware(Guard, token=token, metrics=service.metrics)
    return app


class Health(BaseModel):
    """The answer of /health."""

    status: Literal["healthy"]


class Guard:
    """Middleware that answers 401 to a request without the token, 413 to one whose body is over the limit, even if its
    Content-Length is wrong or missing, and 503 while the bodies of other requests take too much memory. Counts all requests."""

    def __init__(self, app: ASGIApp, token: str | None, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics
        self.expected = f"Bearer {token}".encode() if token else None
        self.held = 0  # bytes of the bodies of all requests that are being served

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange, started = _Exchange(self, scope, receive, send), time.monotonic()
        try:
            await exchange.serve()
        finally:
            self.held -= exchange.read
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(route, exchange.status).observe(time.monotonic() - started)


class _Exchange:
    """One request and its answer. `read`: bytes of the body that were read; `status`: of the answer, 0 before it has begun."""

    def __init__(self, guard: Guard, scope: Scope, receive: Receive, send: Send) -> None:
        self.guard, self.scope, self._receive, self._send = guard, scope, receive, send
        headers = dict(scope["headers"])
        self.stated = int(headers.get(b"content-length", b"0"))
        self.token = headers.get(b"authorization", b"")
        self.read = self.status = 0
        self._refused: JSONResponse | None = None

    def _refusal(self) -> JSONResponse | None:
        """The answer if the request has to be refused, as far as it is known by now."""
        expected, closing = self.guard.expected, {"Connection": "close"}  # the rest of the body is not read
        if expected and self.scope["path"] not in OPEN and not hmac.compare_digest(self.token, expected):
            detail = "expected the header Authorization: Bearer TOKEN"
            return JSONResponse({"detail": detail}, 401, {"WWW-Authenticate": "Bearer"})
        if max(self.read, self.stated) > BODY_BYTES:
            detail = f"the body is larger than allowed: {BODY_BYTES} bytes"
            return JSONResponse({"detail": detail}, 413, closing)
        if self.read and self.guard.held > HELD_BYTES:
            detail = f"the bodies of all requests are larger than allowed: {HELD_BYTES} bytes"
            return JSONResponse({"detail": detail}, 503, closing | {"Retry-After": str(RETRY_AFTER_SECONDS)})
        return None

    async def serve(self) -> None:
        """Answer the request."""
        if refused := self._refusal():
            await refused(self.scope, self._receive, self._sent)
        else:
            await self.guard.app(self.scope, self._counted, self._replaced)

    async def _counted(self) -> Message:
        """The next message for the application. Raises `OSError` if the request is refused."""
        message = await self._receive()
        if size := len(message.get("body", b"")):
            self.read += size
            self.guard.held += size
            self._refused = self._refusal()
        if self._refused:
            raise OSError("the body is refused")
        return message

    async def _replaced(self, message: Message) -> None:
        """Send a message of the application's answer; if the request was refused meanwhile, send the refusal instead."""
        if not self._refused:
            await self._sent(message)
        elif message["type"] == "http.response.start":
            await self._refused(self.scope, self._receive, self._sent)

    async def _sent(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)
