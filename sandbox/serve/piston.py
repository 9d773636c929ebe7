"""Piston's API, version 2 (POST /api/v2/execute, GET /api/v2/runtimes), which runs one program on one input."""

import signal
from base64 import b64encode
from typing import Annotated, Literal

from fastapi import APIRouter, HTTPException, Request
from pydantic import BaseModel, Field, WithJsonSchema

from sandbox.encoding import encoded
from sandbox.errors import SandboxError, UsageError
from sandbox.exchange import MOST_GIVEN
from sandbox.languages import LANGUAGES, language
from sandbox.serve import bodies
from sandbox.serve.bodies import REFUSALS, Arguments, Body, FileName, LanguageName
from sandbox.serve.service import CEILINGS, Service, check_named, signal_of
from sandbox.verdicts import Case, Phase, Program, Result, Verdict

Status = Literal["TO", "OL", "SG", "RE"]
STATUSES: dict[Verdict, Status] = {Verdict.timeout: "TO", Verdict.output_exceeded: "OL"}
"""Piston's status by verdict (time limit, output limit). Other failures get RE (exit code) or SG (signal)."""
VERSION = "0.0.0"
"""The version of every language; requests may ask for any."""
RUN_MS, COMPILE_MS = 3000, 10000
"""Piston's default time limits in milliseconds, of a run and of a compilation."""


PREFIX = "/api/v2"
_MILLISECONDS = {"type": "number", "minimum": 0, "maximum": CEILINGS.cpu_seconds * 1000}
Milliseconds = Annotated[float | None, WithJsonSchema(bodies.or_null(_MILLISECONDS))]
Memory = Annotated[int | None, WithJsonSchema(bodies.or_null(*bodies.memory_schema(1, default=0)["anyOf"]))]


class File(Body):
    """A file of the request. The first file with encoding utf8 is the program itself."""

    content: str
    name: FileName | None = None
    encoding: Literal["utf8", "base64", "hex"] = "utf8"


class Execute(Body):
    """The request. Times are in milliseconds, memory in bytes. A memory limit of -1 means the language's default. `version` and
    `compile_memory_limit` are not used."""

    model_config = bodies.example(
        language="python", version="*", files=[{"content": "print(int(input()) * 2)"}], stdin="21"
    )

    language: LanguageName
    version: str
    files: list[File] = Field(min_length=1, max_length=MOST_GIVEN)
    stdin: str = ""
    args: Arguments = Field(default_factory=list)
    run_timeout: Milliseconds = None
    compile_timeout: Milliseconds = None
    run_cpu_time: Milliseconds = None
    compile_cpu_time: Milliseconds = None
    run_memory_limit: Memory = None
    compile_memory_limit: int | None = None


class Stage(BaseModel):
    """How the compiler or the program ended."""

    stdout: str
    stderr: str
    output: str
    code: int | None
    signal: str | None
    message: str | None
    status: Status | None
    cpu_time: int
    wall_time: int
    memory: int


class Executed(BaseModel):
    """The answer. `compile` is missing for languages without a compiler; `run` is `compile` if the compiler failed."""

    language: str
    version: str
    compile: Stage | None = None
    run: Stage


class Runtime(BaseModel):
    """A language that the server runs."""

    language: str
    version: str
    aliases: list[str]
    runtime: str


class Message(BaseModel):
    """The answer to a wrong request, as Piston gives it."""

    message: str


def router(service: Service) -> APIRouter:
    """The routes of this API."""
    routes = APIRouter(prefix=PREFIX, tags=["Piston"])
    wrong = {"model": Message, "description": "A field is wrong, or above the server's limits"}
    refusals = {status: how for status, how in REFUSALS.items() if status not in (400, 422)} | {"4XX": wrong}

    @routes.post("/execute", responses=refusals, response_model_exclude_unset=True)
    async def execute(body: Execute, request: Request) -> Executed:
        try:
            program = _program(service, body)
        except (UsageError, ValueError) as error:
            raise HTTPException(422, str(error)) from error
        assert program.limits
        # A program with a limit on CPU time of its own may sleep for longer than that.
        wait_seconds = None if body.run_cpu_time else program.limits.cpu_seconds
        [result] = await service.judge(request, [program], wait_seconds)
        return _answer(result, program)

    @routes.get("/runtimes", responses={status: REFUSALS[status] for status in (401, 504)})
    def runtimes() -> list[Runtime]:
        found = []
        for row in LANGUAGES.values():
            try:
                missing = service.sandbox.missing_tools(row.name)
            except SandboxError as error:
                raise HTTPException(504, f"the sandbox failed: {error}") from error
            if not missing:
                others = list(row.names[1:])
                runtime = Runtime(language=row.name, version=VERSION, aliases=others, runtime=row.title)
                found.append(runtime)
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
    run = body.run_cpu_time or body.run_timeout or RUN_MS
    compile = body.compile_cpu_time or body.compile_timeout or COMPILE_MS
    memory = body.run_memory_limit if body.run_memory_limit and body.run_memory_limit > 0 else None
    limits = service.limits(name, run / 1000, compile / 1000, memory)
    stdin = body.stdin if body.stdin.endswith("\n") else body.stdin + "\n"  # as Piston does
    case = Case(stdin, None)
    program = Program(
        "0", name, main.content, (case,), limits=limits, args=tuple(body.args), files=files, whole_output=True
    )
    check_named(program)
    return program


def _base64(file: File) -> str:
    if file.encoding == "base64":
        return file.content
    if file.encoding == "utf8":
        return b64encode(encoded(file.content)).decode()
    try:
        return b64encode(bytes.fromhex(file.content)).decode()
    except ValueError as error:
        raise UsageError(f"file {file.name!r:.80}: its content is not hex: {error}") from error


def _answer(result: Result, program: Program) -> Executed:
    ran, compiled = result.ran or result.compiled, result.compiled
    assert ran
    answer = Executed(language=program.language, version=VERSION, run=_stage(ran, result.note))
    note = "" if result.ran else result.note
    return answer.model_copy(update={"compile": _stage(compiled, note)}) if compiled else answer


def _stage(phase: Phase, note: str) -> Stage:
    """Piston's object for one command: its output, how it ended, and what it used. `note`: see `Result.note`."""
    killed = phase.exit_code is None
    number = signal.SIGKILL if killed else signal_of(phase.exit_code or 0)
    status = STATUSES.get(phase.verdict) or ("SG" if number else "RE" if phase.exit_code else None)
    name = signal.Signals(number).name if number else None
    return Stage(
        stdout=phase.stdout,
        stderr=phase.stderr,
        output=phase.stdout + phase.stderr,
        code=None if name else phase.exit_code,
        signal=name,
        message=None if phase.verdict is Verdict.passed else "; ".join(filter(None, (phase.verdict, note))),
        status=status,
        cpu_time=round(phase.cpu_seconds * 1000),
        wall_time=round(phase.seconds * 1000),
        memory=phase.peak_memory_bytes,
    )
