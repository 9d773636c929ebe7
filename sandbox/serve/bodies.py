"""The bodies of requests, the answers to requests that are refused, and both as JSON schemas for /docs."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, WithJsonSchema

from sandbox.exchange import LONGEST_NAME, MOST_ARGUMENTS, MOST_GIVEN
from sandbox.languages import LANGUAGES
from sandbox.serve.guard import MOST_ERRORS, QUOTE, Json, answer_unreadable
from sandbox.serve.service import CEILINGS, LEAST_MEMORY_BYTES


class Body(BaseModel):
    """A request's body. Fields and types that it does not name are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def example(**fields: Any) -> ConfigDict:
    """Shows a body with these fields in /docs, where a caller can send it."""
    return ConfigDict(json_schema_extra={"examples": [fields]})


class Refused(BaseModel):
    """The body of an answer with status 4xx or 5xx. `detail`: what was got, and what is allowed."""

    detail: str


_WHEN = {
    400: "The body cannot be read",
    401: "The header Authorization is missing or has another token",
    413: "The body is too large",
    422: "A field is wrong, or above the server's limits",
    503: "The server is busy; the header Retry-After says after how many seconds to retry",
    504: "The sandbox failed, which says nothing about the program; retry",
}
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Refused, "description": when} for status, when in _WHEN.items()
}
"""How a route may refuse a request, for /docs."""

# Requests are checked elsewhere too, with messages that say more. The schemas are what clients and /docs see.
LANGUAGE_NAMES = [name for row in LANGUAGES.values() for name in row.names]
_NAME = {
    "type": "string",
    "minLength": 1,
    "maxLength": LONGEST_NAME,
    "pattern": r"^[\w-][\w.-]*(/[\w-][\w.-]*)*$",
}
_SECONDS = {"type": "number", "exclusiveMinimum": 0, "maximum": CEILINGS.cpu_seconds}

_ARGUMENT = {"type": "string", "pattern": r"^[^\u0000]*$"}
_BASE64 = {"type": "string", "pattern": r"^([A-Za-z0-9+/]{4})*$", "contentEncoding": "base64"}


def listed(items: dict[str, Any], most: int) -> dict[str, Any]:
    """The JSON schema of a list of at most `most` such `items`."""
    return {"type": "array", "items": items, "maxItems": most}


def or_null(*schemas: dict[str, Any]) -> dict[str, Any]:
    """The JSON schema of a value that fits one of `schemas` or is null."""
    return {"anyOf": [*schemas, {"type": "null"}]}


_FILES = {"type": "object", "propertyNames": _NAME, "maxProperties": MOST_GIVEN}
_FILES["additionalProperties"] = or_null(_BASE64)

LanguageName = Annotated[str, WithJsonSchema({"enum": LANGUAGE_NAMES})]
Seconds = Annotated[float, WithJsonSchema(_SECONDS)]
FileName = Annotated[str, WithJsonSchema(_NAME)]
FileNames = Annotated[list[str], WithJsonSchema(listed(_NAME, MOST_GIVEN))]
Arguments = Annotated[list[str], WithJsonSchema(listed(_ARGUMENT, MOST_ARGUMENTS))]
Files = Annotated[dict[str, str | None], WithJsonSchema(_FILES)]


def memory_schema(unit: int, default: int) -> dict[str, Any]:
    """The JSON schema of a memory limit, an integer in units of `unit` bytes. `default` and less: the language's default."""
    least, most = LEAST_MEMORY_BYTES // unit, CEILINGS.memory_bytes // unit
    limit = {"type": "integer", "minimum": least, "maximum": most}
    return {"anyOf": [limit, {"type": "integer", "maximum": default}]}


def answer_refusals(app: FastAPI, piston: str) -> None:
    """Let `app` refuse requests with the body `Refused`, and those for paths that begin with `piston` as Piston does."""

    def refused(
        request: Request, status: int, detail: str, headers: Mapping[str, str] | None = None
    ) -> JSONResponse:
        if request.url.path.startswith(piston) and status in (400, 422):
            return Json({"message": detail}, 400, headers)
        return Json({"detail": detail}, status, headers)

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return refused(request, 422, "; ".join(map(_said, error.errors()[:MOST_ERRORS])))

    answer_unreadable(app, refused)
    app.add_exception_handler(RequestValidationError, invalid)


def _said(error: Any) -> str:
    """One line about a wrong field. `error`: an error of pydantic's. Values are quoted in part only."""
    place = ".".join(map(QUOTE.repr, error["loc"][1:])).replace("'", "")
    if error["type"] == "json_invalid":
        return f"the body is not JSON: {error['ctx']['error']} at character {error['loc'][1]}"
    if error["type"] == "missing" and not place:
        return "the body is empty; expected a JSON object"
    if error["type"] == "missing":
        return f"{place}: this field is required"
    if not place:
        return "the body: expected a JSON object, and the header Content-Type: application/json"
    if error["type"] == "extra_forbidden":
        return f"unknown field {place}; /docs lists the fields"
    return f"{place}: {error['msg']}, got {QUOTE.repr(error['input'])}"
