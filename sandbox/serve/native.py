"""This project's own API (POST /v1/judge), which judges many programs and streams one JSON line for each result."""

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import Field, WithJsonSchema

from sandbox.errors import UsageError
from sandbox.rows import Row, parse_row
from sandbox.serve.bodies import LANGUAGE_NAMES, REFUSALS, Body, example, listed, memory_schema, or_null
from sandbox.serve.service import CEILINGS, MOST_CASES, MOST_PROGRAMS, Service, check_ceilings, check_count
from sandbox.verdicts import Limits, Result


def _object(properties: dict[str, Any], required: Iterable[str]) -> dict[str, Any]:
    """The JSON schema of an object with these `properties` and no others, of which the `required` have to be there."""
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return schema | {"required": list(required)}


_TEXT = {"type": "string"}
_LANGUAGE = {"enum": LANGUAGE_NAMES}
_PROGRAM = {
    "cases": listed(_object({"stdin": _TEXT, "stdout": _TEXT}, ("stdin", "stdout")), MOST_CASES),
    "compare": {"enum": ["exact", "lines", "tokens", "float:1e-5", "code-contests"]},
    "checker": _object({"language": _LANGUAGE, "program": _TEXT}, ("language", "program")),
    "every_case": {"type": "boolean"},
}
_COMPLETION = {"audit": {"enum": ["off", "all", "sample:0.1"]}}
_LIMITS = {
    name: {
        "type": "number" if isinstance(usual, float) else "integer",
        "exclusiveMinimum": 0,
        "maximum": getattr(CEILINGS, name),
    }
    for name, usual in vars(Limits()).items()
} | {"memory_bytes": memory_schema(1, default=0)["anyOf"][0]}


def _row(required: tuple[str, ...], optional: dict[str, Any]) -> dict[str, Any]:
    """The JSON schema of a row with the `required` texts. A field that need not be there may be null."""
    limits = {"type": "object", "properties": _LIMITS, "additionalProperties": False}
    others = ("program", "prompt", "completion", "tests", *_PROGRAM, *_COMPLETION)
    properties = (
        {name: {"type": "null"} for name in others}
        | {name: or_null(of) for name, of in ({"limits": limits} | optional).items()}
        | dict.fromkeys(required, _TEXT)
        | {"language": _LANGUAGE}
    )
    return _object(properties, required)


_ROW = {
    "oneOf": [
        _row(("id", "language", "program"), _PROGRAM),
        _row(("id", "language", "prompt", "completion", "tests"), _COMPLETION),
    ]
}
_LINES = "application/x-ndjson"
_EXAMPLE = {"id": "a", "language": "python", "prompt": "x = ", "completion": "42", "tests": "assert x > 0"}
_STREAM = {"content": {_LINES: {"schema": {"type": "object"}}}, "description": "One result a line"}


class Judge(Body):
    """The request. `programs`: objects with the fields of the rows that `python -m sandbox judge` reads, and no others."""

    model_config = example(programs=[_EXAMPLE])

    programs: list[Annotated[dict[str, Any], WithJsonSchema(_ROW)]] = Field(
        min_length=1, json_schema_extra={"maxItems": MOST_PROGRAMS}
    )


def _parsed(programs: list[dict[str, Any]], audit: str) -> dict[str, Row]:
    """The rows of a request by id. Raises HTTPException 422."""
    check_count("programs", len(programs))
    rows: dict[str, Row] = {}
    for at, fields in enumerate(programs):
        _check_limits(fields.get("limits"))
        try:
            row = parse_row(fields, audit=audit)
        except (UsageError, ValueError) as error:
            raise HTTPException(422, f"programs[{at}]: {error}") from error
        if row.extra:
            unknown = f"unknown field {min(row.extra)[:80]!r}"
            raise HTTPException(422, f"programs[{at}]: {unknown}; /docs lists the fields")
        if row.program.id in rows:
            raise HTTPException(422, f"programs[{at}]: id {row.program.id[:80]!r} is used twice")
        rows[row.program.id] = row
    return rows


def _check_limits(given: Any) -> None:
    """Raise HTTPException 422 for a limit above this server's, which are lower than those that `parse_row` tells."""
    for name, value in given.items() if isinstance(given, dict) else ():
        if name in vars(CEILINGS) and isinstance(value, int | float) and value > getattr(CEILINGS, name):
            check_ceilings({name: value})


def _line(result: Result) -> str:
    return json.dumps(result.to_json()) + "\n"


def router(service: Service) -> APIRouter:
    """The routes of this API."""
    routes = APIRouter(prefix="/v1", tags=["own"])

    @routes.post("/judge", response_class=StreamingResponse, responses=REFUSALS | {200: _STREAM})
    async def judge(body: Judge, request: Request) -> Response:
        rows = _parsed(body.programs, service.audit)
        programs = [row.program for row in rows.values() if row.known is None]
        if len(programs) == len(rows) == 1:  # so that a failure of the sandbox on it becomes an HTTP status
            [alone] = await service.judge(request, programs)
            return Response(_line(alone), media_type=_LINES)
        results = await service.start(request, programs)
        first = [row.known for row in rows.values() if row.known is not None]

        async def lines() -> AsyncIterator[str]:
            for result in first:
                yield _line(result)
            with suppress(HTTPException):  # the client has hung up
                async for result in results:
                    yield _line(result)

        return StreamingResponse(lines(), media_type=_LINES)

    @routes.get("/ping")
    async def ping() -> str:
        return "pong"

    return routes
