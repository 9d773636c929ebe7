"""SandboxFusion's API (POST /run_code), which runs one program on one input and returns its output."""

from typing import Annotated, Literal

from fastapi import APIRouter, HTTPException, Request
from pydantic import BaseModel, Field, WithJsonSchema

from sandbox.errors import UsageError
from sandbox.languages import language
from sandbox.serve import bodies
from sandbox.serve.bodies import Arguments, Body, FileNames, Files, Seconds
from sandbox.serve.service import Service, check_named, signal_of
from sandbox.verdicts import MIB, Case, Phase, Program, Result, Verdict

NAMES = {"D_ut": "d", "nodejs": "js", "csharp": "cs", "R": "r"}
"""The short name of a language, by SandboxFusion's name."""


class RunCode(Body):
    """The request. The timeouts are limits on CPU time, in seconds; `run_timeout` is also how long a run may sleep.
    `memory_limit_MB`: in MiB; -1: the language's default."""

    model_config = bodies.example(code="print(int(input()) * 2)", language="python", stdin="21")

    code: str
    language: Annotated[str, WithJsonSchema({"enum": [*NAMES, *bodies.LANGUAGE_NAMES]})]
    stdin: str | None = None
    compile_timeout: Seconds = 10
    run_timeout: Seconds = 10
    memory_limit_MB: Annotated[int, WithJsonSchema(bodies.memory_schema(MIB, default=-1))] = -1
    files: Files = Field(default_factory=dict)
    fetch_files: FileNames = Field(default_factory=list)
    args: Arguments = Field(default_factory=list)


class CommandResult(BaseModel):
    """How the compiler or the program ended."""

    status: Literal["Finished", "Error", "TimeLimitExceeded"]
    execution_time: float | None = None
    return_code: int | None = None
    stdout: str | None = None
    stderr: str | None = None


class RunCodeAnswer(BaseModel):
    """The answer. Status `Failed`: the compiler or the program ended with an exit code other than 0 or exceeded a limit. `message`:
    the result's note, such as which library was missing; usually empty."""

    status: Literal["Success", "Failed", "SandboxError"]
    message: str
    compile_result: CommandResult | None = None
    run_result: CommandResult | None = None
    executor_pod_name: str | None = None
    files: dict[str, str] = Field(default_factory=dict)


def router(service: Service) -> APIRouter:
    """The routes of this API."""
    routes = APIRouter(tags=["SandboxFusion"])

    @routes.post("/run_code", responses=bodies.REFUSALS)
    async def run_code(body: RunCode, request: Request) -> RunCodeAnswer:
        try:
            name = language(NAMES.get(body.language, body.language)).name
        except UsageError as error:
            raise HTTPException(422, str(error)) from error
        memory = None if body.memory_limit_MB < 0 else body.memory_limit_MB * MIB
        limits = service.limits(name, body.run_timeout, body.compile_timeout, memory)
        cases = (Case(body.stdin, None),) if body.stdin else ()
        files = tuple((file, content) for file, content in body.files.items() if content is not None)
        args, fetch, code = tuple(body.args), tuple(body.fetch_files), body.code
        if name == "php":  # as SandboxFusion does: what is before the tag would be output
            code = (code if "<?php" in code else f"<?php\n{code}").lstrip()
        try:
            program = Program(
                "0", name, code, cases, limits=limits, args=args, files=files, fetch=fetch, whole_output=True
            )
            check_named(program)
        except ValueError as error:
            raise HTTPException(422, str(error)) from error
        [result] = await service.judge(request, [program], body.run_timeout)
        return answer(result)

    return routes


def answer(result: Result) -> RunCodeAnswer:
    """A result of the sandbox as SandboxFusion's answer."""
    status: Literal["Success", "Failed"] = "Success" if result.verdict is Verdict.passed else "Failed"
    return RunCodeAnswer(
        status=status,
        message=result.note,
        compile_result=_command(result.compiled),
        run_result=_command(result.ran),
        files=dict(result.files),
    )


def _command(phase: Phase | None) -> CommandResult | None:
    """How a command ended; None if it was not run."""
    if phase is None:
        return None
    timeout = phase.verdict is Verdict.timeout
    return CommandResult(
        status="TimeLimitExceeded" if timeout else "Finished",
        execution_time=phase.seconds,
        return_code=None if timeout else _code(phase.exit_code),
        stdout=phase.stdout,
        stderr=phase.stderr,
    )


def _code(exit_code: int | None) -> int:
    """The exit code as Python's `subprocess` reports it: -n after signal n; -9 for a program that the sandbox killed."""
    if exit_code is None:
        return -9
    signal = signal_of(exit_code)
    return -signal if signal else exit_code
