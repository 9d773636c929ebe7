"""What HTTP servers have in common: a bearer token, a limit on bodies, counts of all requests, and answers to unreadable bodies.
Knows nothing of the sandbox."""

import asyncio
import hmac
import json
import reprlib
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_BYTES, HELD_BYTES = 16 << 20, 512 << 20
"""The largest body of a request, and the most that the bodies of all requests that are being served may have together."""
RETRY_AFTER_SECONDS = 2
MOST_ERRORS = 3
"""Wrong fields that one answer names."""
METRICS = {"content": {"text/plain": {"schema": {"type": "string"}}}}
"""The answer of /metrics, for /docs."""
QUOTE = reprlib.Repr()
"""Quotes values in answers, long ones in part only."""
QUOTE.maxstring = QUOTE.maxlong = QUOTE.maxother = 60


class Json(JSONResponse):
    """An answer in ASCII, so that it can hold what a request has brought and UTF-8 cannot: half of a surrogate pair."""

    def render(self, content: Any) -> bytes:
        """The body of the answer."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


Refuse = Callable[[Request, int, str, Mapping[str, str] | None], JSONResponse]
"""Makes the answer to a request that is refused, from the status, a message and headers."""


def answer_unreadable(app: FastAPI, refused: Refuse) -> None:
    """Let `app` answer by `refused` where a body cannot be read, and wherever a handler raises an HTTPException."""

    async def failed(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        unread = error.status_code == 400 and error.__cause__  # FastAPI's own detail does not say why
        detail = f"the body cannot be read as JSON: {error.__cause__}" if unread else error.detail
        return refused(request, error.status_code, detail, error.headers)

    async def deep(request: Request, _: Exception) -> JSONResponse:
        return refused(request, 400, "the body cannot be read: lists or objects nested too deep", None)

    app.add_exception_handler(HTTPException, failed)
    app.add_exception_handler(RecursionError, deep)


def describe_token(app: FastAPI, open: Collection[str]) -> None:
    """Let /openapi.json say that all paths but those in `open` ask for a bearer token."""
    without = app.openapi

    def described() -> dict[str, Any]:
        schema = without()
        schema["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        for path, methods in schema["paths"].items():
            for operation in methods.values():
                operation["security"] = [] if path in open else [{"token": []}]
        return schema

    app.openapi = described  # type: ignore[method-assign]


def plain(detail: str, status: int) -> dict[str, object]:
    """The body of a refusal, as FastAPI has it."""
    return {"detail": detail}


class Guard:
    """Middleware that answers 401 to a request without the token, 413 to one whose body is over the limit, even if its
    Content-Length is wrong or missing, and 503 while the bodies of other requests take too much memory. Counts all requests.

    open      paths that clients may request without the token
    observe   called after each request with its route, its status and its seconds
    refusal   makes the body of a refusal from a message and a status
    """

    def __init__(
        self,
        app: ASGIApp,
        token: str | None,
        open: Collection[str],
        observe: Callable[[str, int, float], None],
        refusal: Callable[[str, int], dict[str, object]] = plain,
    ) -> None:
        self.app, self.open, self.observe, self.refusal = app, open, observe, refusal
        self.expected = token.encode() if token else None
        self.held = 0  # bytes of the bodies of all requests that are being served

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["method"] == "HEAD":  # the answer to GET; uvicorn leaves out its body
            scope = {**scope, "method": "GET"}
        exchange, started = _Exchange(self, scope, receive, send), time.monotonic()
        try:
            await exchange.serve()
        finally:
            self.held -= exchange.read
            route = getattr(scope.get("route"), "path", "other")
            self.observe(route, exchange.status, time.monotonic() - started)


class _Exchange:
    """One request and its answer. `read`: bytes of the body that were read; `status`: of the answer, 0 before it has begun."""

    def __init__(self, guard: Guard, scope: Scope, receive: Receive, send: Send) -> None:
        self.guard, self.scope, self._receive, self._send = guard, scope, receive, send
        headers = dict(scope["headers"])
        self.stated = int(headers.get(b"content-length", b"0"))
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        self.token = token.strip() if scheme.lower() == b"bearer" else b""
        self.read = self.status = 0
        self._refused: JSONResponse | None = None

    def _refusal(self) -> JSONResponse | None:
        """The answer if the request has to be refused, as far as it is known by now."""
        guard, closing = self.guard, {"Connection": "close"}  # the rest of the body is not read
        unknown = guard.expected and not hmac.compare_digest(self.token, guard.expected)
        if unknown and self.scope["path"] not in guard.open:
            detail = "expected the header Authorization: Bearer TOKEN"
            return self._answer(detail, 401, {"WWW-Authenticate": "Bearer"})
        if max(self.read, self.stated) > BODY_BYTES:
            return self._answer(f"the body is larger than allowed: {BODY_BYTES} bytes", 413, closing)
        if self.read and guard.held > HELD_BYTES:
            detail = f"the bodies of all requests are larger than allowed: {HELD_BYTES} bytes"
            return self._answer(detail, 503, closing | {"Retry-After": str(RETRY_AFTER_SECONDS)})
        return None

    def _answer(self, detail: str, status: int, headers: dict[str, str]) -> JSONResponse:
        return Json(self.guard.refusal(detail, status), status, headers)

    async def serve(self) -> None:
        """Answer the request."""
        refused = self._refusal()
        try:
            if not refused:
                await self.guard.app(self.scope, self._counted, self._replaced)
        # By uvicorn, when the server ends and the time for what was accepted is over.
        except asyncio.CancelledError:
            if self.status:
                raise
            headers = {"Connection": "close", "Retry-After": str(RETRY_AFTER_SECONDS)}
            refused = self._answer("the server ends; another may answer", 503, headers)
        if refused:
            await refused(self.scope, self._receive, self._sent)

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
