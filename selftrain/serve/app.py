"""The HTTP application: the routes, a bearer token, a body limit, /healthz and /metrics, and replacement by a newer reranker."""

import asyncio
import logging
import signal
import threading
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Response
from fastapi.responses import FileResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel

from sandbox.serve.guard import METRICS, Guard, describe_token
from selftrain.errors import SelftrainError
from selftrain.serve.refusals import REFUSALS, answer_refusals, refusal
from selftrain.serve.routes import router
from selftrain.serve.served import Source
from selftrain.serve.service import Limits, Service

log = logging.getLogger(__name__)

OPEN = ("/", "/health", "/healthz")
"""Paths that clients may request without the token."""
PAGE = Path(__file__).parent / "pages" / "index.html"
"""What / shows."""


class Health(BaseModel):
    """The answer of /healthz. `status`: ok, or with HTTP 503 what is wrong; `model`: the reranker that is served; `ranks_by`: the
    ranking rule."""

    status: str
    model: str
    ranks_by: str


def application(source: Source, limits: Limits, token: str | None = None, poll_seconds: float = 0) -> FastAPI:
    """The HTTP application. `token`: the bearer token; None: everyone who can reach the port may ask. `poll_seconds`: how often to
    look for a newer reranker; 0: never, only at SIGHUP. If the scoring thread breaks, `app.state.broke` says what it was, and
    `app.state.stop()` is called."""
    service = Service(source, limits, lambda: app.state.stop())

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        tasks: set[asyncio.Task[None]] = set()

        def start(work: Coroutine[Any, Any, None]) -> None:
            tasks.add(task := asyncio.create_task(work))
            task.add_done_callback(tasks.discard)

        if poll_seconds:
            start(_poll(service, source, poll_seconds))
        if threading.current_thread() is threading.main_thread():
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGHUP, lambda: start(_renew(service, source, always=True)))
        yield
        for task in tuple(tasks):
            task.cancel()
        await asyncio.to_thread(service.close)

    app = FastAPI(title="Reranker", description="Ranks programs for a prompt.", lifespan=life)
    app.state.stop = lambda: None
    app.state.broke = lambda: service.batcher.broke
    app.include_router(router(service))
    answer_refusals(app)

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE)

    @app.get("/healthz", responses={503: {"model": Health}})
    @app.get("/health", include_in_schema=False)
    async def healthz(response: Response) -> Health:
        fault = service.batcher.fault(limits.stuck)
        if fault:
            response.status_code = 503
        return Health(status=fault or "ok", model=source.served.name, ranks_by=source.served.way)

    @app.get("/metrics", response_class=Response, responses={200: METRICS, 401: REFUSALS[401]})
    async def metrics() -> Response:
        return Response(service.metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    def observe(route: str, status: int, seconds: float) -> None:
        service.metrics.requests.labels(route, status).observe(seconds)

    if token:
        describe_token(app, OPEN)
    app.add_middleware(Guard, token=token, open=OPEN, observe=observe, refusal=refusal)
    return app


async def _renew(service: Service, source: Source, always: bool) -> None:
    """Replace the served reranker if there is a newer one, or `always`. One that cannot be loaded is logged and counted, and the old
    one is served on."""
    try:
        if await asyncio.to_thread(source.renew, always):
            service.metrics.serves(source.served.name)
            service.metrics.reloads.labels("loaded").inc()
    except Exception as error:  # whatever it is, the old one is served on
        service.metrics.reloads.labels("failed").inc()
        why = str(error) if isinstance(error, SelftrainError) else f"{type(error).__name__}: {error}"
        log.warning("still serving %s, the newer reranker cannot be loaded: %s", source.served.name, why)


async def _poll(service: Service, source: Source, seconds: float) -> None:
    """Look for a newer reranker every `seconds`."""
    while True:
        await asyncio.sleep(seconds)
        await _renew(service, source, always=False)
