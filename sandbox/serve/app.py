"""The HTTP application, which serves all APIs from one `Service`, with a bearer token, a body limit, /health and /metrics."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel

from sandbox.client import Sandbox
from sandbox.serve import fusion, native, open_instruct, piston
from sandbox.serve.bodies import REFUSALS, answer_refusals
from sandbox.serve.direct import Direct
from sandbox.serve.guard import METRICS, Guard, describe_token
from sandbox.serve.service import Service

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
    routers = [of.router(service) for of in (native, fusion, piston, open_instruct)]
    for router in routers:
        app.include_router(router)
    answer_refusals(app, piston.PREFIX)

    @app.get("/health")
    async def health() -> Health:
        return Health(status="healthy")

    @app.get("/metrics", response_class=Response, responses={200: METRICS, 401: REFUSALS[401]})
    async def metrics() -> Response:
        return Response(service.metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    def observe(route: str, status: int, seconds: float) -> None:
        service.metrics.requests.labels(route, status).observe(seconds)

    app.add_middleware(Direct, routers=routers, handlers=app.exception_handlers)
    if token:
        describe_token(app, OPEN)
    app.add_middleware(Guard, token=token, open=OPEN, observe=observe)
    return app


class Health(BaseModel):
    """The answer of /health."""

    status: Literal["healthy"]
