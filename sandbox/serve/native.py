"""This project's own API (POST /v1/judge), which judges many programs and streams one JSON line for each result."""

import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from sandbox.errors import UsageError
from sandbox.rows import parse_row
from sandbox.serve.service import Service, check_count, check_judged


class Judge(BaseModel):
    """The request. `programs`: objects with the fields of the rows that `python -m sandbox judge` reads."""

    programs: list[dict[str, Any]] = Field(min_length=1)


def router(service: Service) -> APIRouter:
    """The routes of this API."""
    routes = APIRouter(prefix="/v1", tags=["own"])

    @routes.post("/judge")
    async def judge(body: Judge, request: Request) -> StreamingResponse:
        check_count("programs", len(body.programs))
        rows = {}
        for at, fields in enumerate(body.programs):
            try:
                row = parse_row(fields)
            except (UsageError, ValueError) as error:
                raise HTTPException(422, f"programs[{at}]: {error}") from error
            if row.program.id in rows:
                raise HTTPException(422, f"programs[{at}]: id {row.program.id!r} is used twice")
            rows[row.program.id] = row
        results = await service.start(request, [row.program for row in rows.values() if row.known is None])
        first = [row.known for row in rows.values() if row.known is not None]
        if not first and len(rows) == 1:  # so that a failure of the sandbox on it becomes an HTTP status
            first.append(await anext(results))
            check_judged(first[0])

        async def lines() -> AsyncIterator[str]:
            for result in first:
                yield json.dumps(result.to_json()) + "\n"
            async for result in results:
                yield json.dumps(result.to_json()) + "\n"

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    @routes.get("/ping")
    async def ping() -> str:
        return "pong"

    return routes
