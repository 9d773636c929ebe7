"""Answers to requests that are refused, in a form that each client can read: Cohere's `message`, Jina's `detail`, vLLM's `error`
object, or `error` and `error_type` for clients of Text Embeddings Inference."""

from collections.abc import Mapping
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from sandbox.serve.guard import MOST_ERRORS, QUOTE, Json, answer_unreadable


class Refused(BaseModel):
    """The body of an answer with status 4xx or 5xx. All three texts say what was got, and what is allowed."""

    message: str
    detail: str
    error: dict[str, Any]


class TeiRefused(BaseModel):
    """The same for requests of Text Embeddings Inference, once their body was read."""

    error: str
    error_type: Literal["Validation", "Overloaded", "Backend"]


_WHEN = {
    400: "The body cannot be read",
    401: "The header Authorization is missing or has another token",
    413: "The body, the number of candidates or their characters are above the server's limits",
    422: "A field is wrong, or prompt and candidate are longer than the reranker's input",
    503: "Too many candidates wait; the header Retry-After says after how many seconds to retry",
}
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Refused, "description": when} for status, when in _WHEN.items()
}
"""How a route may refuse a request, for /docs."""
RERANK_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Refused | TeiRefused, "description": _WHEN[status]} for status in (413, 422, 503)
}
"""The same for routes of which Text Embeddings Inference has one."""
_TYPES = {401: "AuthenticationError", 404: "NotFoundError", 503: "ServiceUnavailableError"}


def refusal(detail: str, status: int) -> dict[str, object]:
    """The body of a refusal."""
    kind = _TYPES.get(status, "BadRequestError" if status < 500 else "InternalServerError")
    error = {"message": detail, "type": kind, "param": None, "code": status}
    return {"message": detail, "detail": detail, "error": error}


def tei_refusal(detail: str, status: int) -> dict[str, object]:
    """The body of a refusal for clients of Text Embeddings Inference."""
    kind = "Overloaded" if status == 503 else "Backend" if status >= 500 else "Validation"
    return {"error": detail, "error_type": kind}


def answer_refusals(app: FastAPI) -> None:
    """Let `app` refuse requests in these forms. A handler sets `request.state.tei` where the request is one of that API."""

    def refused(
        request: Request, status: int, detail: str, headers: Mapping[str, str] | None = None
    ) -> JSONResponse:
        form = tei_refusal if getattr(request.state, "tei", False) else refusal
        return Json(form(detail, status), status, headers)

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        request.state.tei = isinstance(error.body, dict) and "texts" in error.body
        return refused(request, 422, said(error))

    async def broken(request: Request, error: Exception) -> JSONResponse:
        return refused(request, 500, f"the reranker failed: {type(error).__name__}")

    answer_unreadable(app, refused)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Exception, broken)


def said(error: RequestValidationError) -> str:
    """One line about the wrong fields of a body."""
    found = dict.fromkeys(map(_said, error.errors()))
    return "; ".join(list(found)[:MOST_ERRORS])


def _said(error: Any) -> str:
    """One line about a wrong field. `error`: an error of pydantic's. Values are quoted in part only."""
    place = ".".join(map(str, error["loc"][1:]))[:120]
    if error["type"] == "json_invalid":
        return f"the body is not JSON: {error['ctx']['error']} at character {error['loc'][1]}"
    if error["type"] == "missing":
        return f"{place}: this field is required" if place else "the body is empty; expected a JSON object"
    message = error["msg"].removeprefix("Value error, ")
    if not place:
        wrong = "expected a JSON object, and the header Content-Type: application/json"
        return message if error["type"] == "value_error" else f"the body: {wrong}"
    return f"{place}: {message}, got {QUOTE.repr(error['input'])}"
