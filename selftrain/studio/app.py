"""The studio's HTTP application, for one person at this machine: a page, and routes that rank, generate and judge.

It answers only requests to a loopback name and from its own page: other pages that a browser has open cannot use it, also not by a
host name that they let point here. Texts enter the page as text only, and its policy allows no script but its own.
"""

import base64
import hashlib
import itertools
import math
import os
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel, Field
from starlette.middleware.trustedhost import TrustedHostMiddleware

from sandbox.client import Sandbox
from sandbox.errors import SandboxError
from sandbox.languages import LANGUAGES
from sandbox.programs import assemble
from sandbox.serve.guard import Json, answer_unreadable
from selftrain.errors import SelftrainError, UsageError
from selftrain.generate.generator import Generator
from selftrain.problems.chat import source_of
from selftrain.records import PromptStyle
from selftrain.report.template import ASSETS, environment, page_style
from selftrain.rerank.tokens import token_scores
from selftrain.serve.refusals import said
from selftrain.serve.served import Problem, Served

MOST_CANDIDATES = 64
MOST_CHARACTERS = 100_000
"""Characters of one text."""
HOSTS = ("127.0.0.1", "localhost")
Text = Annotated[str, Field(max_length=MOST_CHARACTERS)]


class ProblemBody(BaseModel):
    """A problem. `language`: of the programs; empty: what the prompt looks like."""

    prompt: Text
    language: str = ""


class RankBody(ProblemBody):
    """Candidates to rank. `tests`: code behind the program, with which the sandbox judges it; empty: no verdicts."""

    candidates: Annotated[list[Text], Field(min_length=1, max_length=MOST_CANDIDATES)]
    tests: Text = ""


class GenerateBody(ProblemBody):
    """Candidates to generate."""

    n: Annotated[int, Field(ge=1, le=MOST_CANDIDATES)] = 8
    temperature: Annotated[float, Field(gt=0, le=2)] = 0.8
    max_new_tokens: Annotated[int, Field(ge=1, le=4096)] = 128


def application(
    served: Served, generator: Callable[[], Generator], sandbox: Callable[[], Any] | None = None
) -> FastAPI:
    """The application.

    generator  loads the generator, when one is first asked for
    sandbox    opens a sandbox for the verdicts of one request; None: the best that this machine has
    """
    app = FastAPI(
        title="Studio", docs_url=None, redoc_url=None, openapi_url=None, default_response_class=Json
    )
    model = threading.Lock()  # one request at a time computes
    loaded: list[Generator] = []
    seeds = itertools.count()  # the same prompt gets other programs each time
    page, policy = _page(served)
    _guard(app, policy)

    @app.get("/")
    def index() -> HTMLResponse:
        return HTMLResponse(page)

    @app.post("/rank")
    def rank(body: RankBody) -> dict[str, Any]:
        with model:
            problem = served.read(body.prompt, body.candidates, body.language or None)
            [ranked] = served.rank([problem])
            tokens = {
                at: token_scores(served.reranker, form)
                for at, form in enumerate(problem.forms)
                if math.isfinite(ranked.scores[at])
            }
        verdicts: Sequence[str | None] = [None] * len(problem.forms)
        if body.tests.strip():
            verdicts = _verdicts(problem, served.reranker.style, body.tests, sandbox)
        rows = [
            {
                "score": score if at in tokens else None,
                "chance": served.relevance(score) if at in tokens and served.calibrated else None,
                "refused": ranked.refused.get(at),
                "verdict": verdicts[at],
                "tokens": tokens.get(at, []),
            }
            for at, score in enumerate(ranked.scores)
        ]
        order = sorted(tokens, key=lambda at: -ranked.scores[at])
        doubts = [doubt for doubt in (ranked.far, ranked.close) if doubt]
        return {"by": served.way, "order": order, "candidates": rows, "doubts": doubts}

    @app.post("/generate")
    def generate(body: GenerateBody) -> dict[str, Any]:
        with model:
            if not loaded:
                loaded.append(generator())
            how = (body.n, body.temperature, body.max_new_tokens)
            written = loaded[0].sample(body.prompt, *how, seed=next(seeds), language=body.language or None)
        return {"candidates": list(dict.fromkeys(one.text for one in written))}

    return app


def _guard(app: FastAPI, policy: str) -> None:
    """Let only the page itself ask, by a loopback name, and tell what a person got wrong in one line."""

    @app.middleware("http")
    async def own_page_only(request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
        origin = request.headers.get("origin")
        if origin is not None and origin != f"{request.url.scheme}://{request.headers.get('host')}":
            return JSONResponse({"error": "only this server's own page may ask"}, 403)
        answer = await call(request)
        answer.headers["Content-Security-Policy"] = policy
        answer.headers["X-Content-Type-Options"] = "nosniff"
        answer.headers["Referrer-Policy"] = "no-referrer"
        return answer

    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(HOSTS))

    def refused(
        request: Request, status: int, detail: str, headers: Mapping[str, str] | None = None
    ) -> JSONResponse:
        return Json({"error": detail}, status, headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return refused(request, 422, said(error))

    @app.exception_handler(SelftrainError)
    @app.exception_handler(SandboxError)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        return refused(request, 422 if getattr(error, "exit_code", 1) == 2 else 503, str(error))

    answer_unreadable(app, refused)


def _verdicts(
    problem: Problem, style: PromptStyle, tests: str, sandbox: Callable[[], Any] | None
) -> list[str]:
    """[candidates] verdicts of the sandbox on the candidates with the tests."""
    if problem.language is None:
        raise UsageError("tests run in a language: choose one")
    programs = [
        assemble(problem.language, *source_of(*form, style), tests).program(str(at), problem.language)
        for at, form in enumerate(problem.forms)
    ]
    opened = sandbox() if sandbox else Sandbox("auto", workers=os.cpu_count() or 1)
    with opened as judge:
        found = {result.id: str(result.verdict) for result in judge.run(programs)}
    return [found[program.id] for program in programs]


def _page(served: Served) -> tuple[str, str]:
    """The page, and its content security policy."""
    script = (ASSETS / "text.js").read_text("utf-8") + (ASSETS / "studio.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    html = (
        environment()
        .get_template("studio.html")
        .render(
            name=served.name,
            way=served.way,
            style=page_style(),
            script=script,
            script_hash=digest,
            connect=True,
            languages=sorted(LANGUAGES),
            solved=served.picker.solved if served.picker else "",
        )
    )
    return html, policy
