"""open-instruct's API (POST /test_program, /test_program_stdio), which returns 1 or 0 for each test of a Python program."""

import json
import math
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Request
from pydantic import BaseModel, WithJsonSchema

from sandbox.programs import assemble
from sandbox.serve.bodies import REFUSALS, Body, Seconds, example, listed
from sandbox.serve.service import MOST_PROGRAMS, Service, check_count
from sandbox.twin import chosen
from sandbox.verdicts import Case, Program, Verdict

_TEST = {"type": "object", "required": ["input", "output"], "additionalProperties": True}


class Tests(Body):
    """The request. `tests`: a list of statements (/test_program) or of objects with `input` and `output` (/test_program_stdio),
    or such a list as JSON text. `max_execution_time`: the limit for each test, in seconds of CPU time."""

    program: str
    tests: Any
    max_execution_time: Seconds = 1.0


class Statements(Tests):
    """As `Tests`."""

    model_config = example(program="def double(n):\n    return 2 * n\n", tests=["assert double(21) == 42"])

    tests: Annotated[Any, WithJsonSchema(listed({"type": "string"}, MOST_PROGRAMS))]


class Cases(Tests):
    """As `Tests`."""

    model_config = example(program="print(int(input()) * 2)", tests=[{"input": "21", "output": "42"}])

    tests: Annotated[Any, WithJsonSchema(listed(_TEST, MOST_PROGRAMS))]


class Results(BaseModel):
    """The answer, with one element for each test. `results`: 1 if it passed, else 0. `runtimes`: the seconds that it took; -1 if it
    failed."""

    results: list[int]
    runtimes: list[float]


def router(service: Service) -> APIRouter:
    """The routes of this API."""
    routes = APIRouter(tags=["open-instruct"])

    @routes.post("/test_program", responses=REFUSALS)
    async def test_program(body: Statements, request: Request) -> Results:
        limits = service.limits("py", body.max_execution_time, None, None)
        programs = []
        for at, test in enumerate(_listed(body.tests)):
            if not isinstance(test, str):
                raise HTTPException(422, f"tests[{at}]: expected text, got {type(test).__name__}")
            made = assemble("py", "", body.program, "\n" + test)
            programs.append(made.program(str(at), "py", limits, chosen(service.audit, made.source)))
        return await results(request, programs, body.max_execution_time)

    @routes.post("/test_program_stdio", responses=REFUSALS)
    async def test_program_stdio(body: Cases, request: Request) -> Results:
        seconds = math.ceil(body.max_execution_time)
        limits = service.limits("py", seconds, None, None)
        programs = []
        for at, test in enumerate(_listed(body.tests)):
            if not isinstance(test, dict) or not {"input", "output"} <= test.keys():
                wrong = f"expected an object with input and output, got {test!r:.200}"
                raise HTTPException(422, f"tests[{at}]: {wrong}")
            case = Case(str(test["input"]), str(test["output"]))
            programs.append(Program(str(at), "py", body.program, (case,), limits=limits, compare="lines"))
        return await results(request, programs, seconds)

    async def results(request: Request, programs: list[Program], seconds: float) -> Results:
        found = await service.judge(request, programs, seconds)
        passed = [result.verdict is Verdict.passed for result in found]
        took = [result.run_seconds if right else -1.0 for result, right in zip(found, passed, strict=True)]
        return Results(results=list(map(int, passed)), runtimes=took)

    return routes


def _listed(tests: Any) -> list[Any]:
    """The request's tests as a list. Raises HTTPException 422, also for open-instruct's compressed form: it is a pickle, and
    reading a pickle may run any code."""
    if isinstance(tests, str):
        try:
            tests = json.loads(tests)
        except ValueError:
            expected = "expected a list, or one as JSON text; compressed tests are pickles and are not read"
            raise HTTPException(422, f"tests: {expected}") from None
    if not isinstance(tests, list):
        raise HTTPException(422, f"tests: expected a list, got {type(tests).__name__}")
    check_count("tests", len(tests))
    return tests
