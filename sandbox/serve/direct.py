"""Answers ordinary requests without FastAPI, which takes longer for one than a worker does for a small program.

pydantic reads a body's bytes and writes the answer's. FastAPI describes the routes, and answers every request that is not
ordinary: of another type, with a body that is wrong.
"""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_JSON = b"application/json"


class Direct:
    """Middleware that answers POST requests for the routes of `routers`. `handlers`: FastAPI's, which make the answers for
    exceptions."""

    def __init__(self, app: ASGIApp, routers: Iterable[APIRouter], handlers: Mapping[Any, Any]) -> None:
        self.app, self.handlers = app, handlers
        routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
        self.routes = {route.path: route for route in routes if "POST" in (route.methods or ())}
        self.bodies: dict[str, type[BaseModel]] = {
            path: inspect.signature(route.endpoint).parameters["body"].annotation
            for path, route in self.routes.items()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        route = self.routes.get(scope["path"]) if scope["type"] == "http" else None
        if route is None or scope["method"] != "POST" or (b"content-type", _JSON) not in scope["headers"]:
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            content = await _read(request)
            try:
                body = self.bodies[route.path].model_validate_json(content)
            except ValidationError:  # FastAPI says what is wrong
                await self.app(scope, _again(content, receive), send)
                return
            scope["route"] = route
            response = _response(route, await route.endpoint(body, request))
        except Exception as error:
            handler = next(filter(None, map(self.handlers.get, type(error).__mro__)), None)
            if handler is None:
                raise
            response = await handler(request, error)
        await response(scope, receive, send)


def _response(route: APIRoute, answer: Any) -> Response:
    """The response with what the endpoint of `route` returned."""
    if isinstance(answer, Response):
        return answer
    content = answer.model_dump_json(exclude_unset=route.response_model_exclude_unset)
    return Response(content, media_type="application/json")


async def _read(request: Request) -> bytes:
    """The body of a request. Raises HTTPException 400 if it does not come."""
    try:
        return await request.body()
    except (ClientDisconnect, OSError) as error:
        raise HTTPException(400, "the body cannot be read") from error


def _again(content: bytes, receive: Receive) -> Receive:
    """`receive` of a request whose body, `content`, has been read already."""
    given = False

    async def first() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": content, "more_body": False}

    return first
