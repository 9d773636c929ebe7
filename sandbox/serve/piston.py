"""Piston's API, version 2 (POST /api/v2/execute, GET /api/v2/runtimes), which runs one program on one input."""

import signal
from base64 import b64encode
from typing import Any, Literal

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from sandbox.errors import SandboxError, UsageError
from sandbox.languages import LANGUAGES, language
from sandbox.serve.service import Service
from sandbox.verdicts import Case, Phase, Program, Result, Verdict

STATUSES = {Verdict.timeout: "TO", Verdict.output_exceeded: "OL"}
"""Piston's status by verdict (time limit, output limit). Other failures get RE (exit code) or SG (signal)."""
RUN_MS, COMPILE_MS = 3000, 10000
"""Piston's default time limits in milliseconds, of a run and of a compilation."""


class File(BaseModel):
    """A file of the request. The first file with encoding utf8 is the program itself."""

    content: str
    name: str | None = None
    encoding: Literal["utf8", "base64", "hex"] = "utf8"


class Execute(BaseModel):
    """The request. Times are in milliseconds, memory in bytes. A memory limit of -1 means the language's default."""

    language: str
    version: str
    files: list[File] = Field(min_length=1)
    stdin: str = ""
    args: list[str] = Field(default_factory=list)
    run_timeout: float | None = None
    compile_timeout: float | None = None
    run_cpu_time: float | None = None
    compile_cpu_time: float | None = None
    run_memory_limit: int | None = None
    compile_memory_limit: int | None = None


def router(service: Service) -> APIRouter:
    """The routes of this API."""
    routes = APIRouter(prefix="/api/v2", tags=["Piston"])

    @routes.post("/execute")
    async def execute(body: Execute, request: Request) -> Any:
        try:
            try:
                program = _program(service, body)
            except (UsageError, ValueError) as error:
                raise HTTPException(422, str(error)) from error
            [result] = await service.judge(request, [program])
        except HTTPException as error:
            if error.status_code == 422:  # Piston's own status and form for a wrong request
                return JSONResponse({"message": error.detail}, 400)
            raise
        return _answer(result, program)

    @routes.get("/runtimes")
    def runtimes() -> list[dict[str, Any]]:
        found = []
        for row in LANGUAGES.values():
            try:
                missing = service.sandbox.missing_tools(row.name)
            except SandboxError as error:
                raise HTTPException(504, f"the sandbox failed: {error}") from error
            if not missing:
                found.append(
                    {
                        "language": row.name,
                        "version": "0.0.0",
                        "aliases": list(row.names[1:]),
                        "runtime": row.title,
                    }
                )
        return found

    return routes


def _program(service: Service, body: Execute) -> Program:
    """The request as a `Program`: its first file with encoding utf8. Raises UsageError, HTTPException, ValueError."""
    main = next((file for file in body.files if file.encoding == "utf8"), None)
    if main is None:
        raise UsageError("files: expected at least one with encoding utf8, the program")
    others = [file for file in body.files if file is not main]
    files = tuple((file.name or f"file{body.files.index(file)}.code", _base64(file)) for file in others)
    name = language(body.language).name
    run = _first(body.run_cpu_time, body.run_timeout, RUN_MS)
    compile = _first(body.compile_cpu_time, body.compile_timeout, COMPILE_MS)
    memory = body.run_memory_limit if body.run_memory_limit and body.run_memory_limit > 0 else None
    limits = service.limits(name, run / 1000, compile / 1000, memory)
    stdin = body.stdin if body.stdin.endswith("\n") else body.stdin + "\n"  # as Piston does
    case = Case(stdin, None)
    return Program("0", name, main.content, (case,), limits=limits, args=tuple(body.args), files=files)


def _base64(file: File) -> str:
    if file.encoding == "base64":
        return file.content
    return b64encode(
        bytes.fromhex(file.content) if file.encoding == "hex" else file.content.encode()
    ).decode()


def _first(*milliseconds: float | None) -> float:
    return next(value for value in milliseconds if value)


def _answer(result: Result, program: Program) -> dict[str, Any]:
    found: dict[str, Any] = {"language": program.language, "version": "0.0.0"}
    if result.compiled:
        found["compile"] = _stage(result.compiled)
    return found | {"run": _stage(result.ran) if result.ran else found["compile"]}


def _stage(phase: Phase) -> dict[str, Any]:
    """Piston's object for one command: its output, how it ended, and what it used."""
    number = phase.exit_code - 128 if phase.exit_code is not None and phase.exit_code > 128 else None
    killed = phase.exit_code is None
    status = STATUSES.get(phase.verdict) or ("SG" if number or killed else "RE" if phase.exit_code else None)
    try:
        name = "SIGKILL" if killed else signal.Signals(number).name if number else None
    except ValueError:  # an exit code above 128 that stands for no signal
        name = None
    return {
        "stdout": phase.stdout,
        "stderr": phase.stderr,
        "output": phase.stdout + phase.stderr,
        "code": None if name else phase.exit_code,
        "signal": name,
        "message": None if phase.verdict is Verdict.passed else str(phase.verdict),
        "status": status,
        "cpu_time": round(phase.cpu_seconds * 1000),
        "wall_time": round(phase.seconds * 1000),
        "memory": phase.peak_memory_bytes,
    }
