"""Ordinary requests are answered without FastAPI (`sandbox.serve.direct`): with the same answers."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from sandbox.serve import open_instruct
from sandbox.serve.app import application
from sandbox.serve.direct import Direct
from sandbox.serve.service import Service
from sandbox.verdicts import Program, Result, Verdict

PLAIN, OTHER = "application/json", "application/json; charset=utf-8"
"""Two types of the same body. The second is left to FastAPI."""


class Echo:
    """A sandbox in which every program prints its source."""

    workers = 1

    def check(self, program: Program) -> None:
        """Every program can be run."""

    def run(self, programs: list[Program], cancel: Any = None) -> Iterator[Result]:
        """One result for each."""
        yield from (
            Result(it.id, Verdict.passed, 0, stdout=it.source, stderr=str(it.cases)) for it in programs
        )

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/run_code", '{"code": "1", "language": "python"}', 200),
        (
            "/run_code",
            '{"code": "\\u00e9\\ud83d\\ude00\\u0000", "language": "R", "stdin": "a", "run_timeout": 1}',
            200,
        ),
        ("/run_code", '{"code": "1", "code": "2", "language": "py", "files": {"a": null, "b": "YQ=="}}', 200),
        ("/run_code", '{"code": "1", "language": "py", "run_timeout": 1e3}', 422),
        ("/run_code", '{"code": "1", "language": "py", "run_timeout": NaN}', 422),
        ("/run_code", '{"code": "1", "language": "py", "run_timeout": "1"}', 422),
        ("/run_code", '{"code": "1", "language": "klingon"}', 422),
        ("/run_code", '{"code": "1", "language": "py", "more": 1}', 422),
        ("/run_code", '{"code": 1}', 422),
        ("/run_code", "[1]", 422),
        ("/run_code", "{", 422),
        ("/run_code", "", 422),
        ("/run_code", "[" * 100_000, 400),
        ("/api/v2/execute", '{"language": "py", "version": "*", "files": [{"content": "1"}]}', 200),
        ("/api/v2/execute", '{"language": "cpp", "version": "*", "files": []}', 400),
        ("/api/v2/execute", '{"language": "klingon", "version": "*", "files": [{"content": "1"}]}', 400),
        ("/test_program", '{"program": "a = 1", "tests": ["assert a"]}', 200),
        ("/test_program", '{"program": "a = 1", "tests": ["assert a", "assert not a"]}', 200),
        ("/test_program", '{"program": "a = 1", "tests": "%s"}' % ("[" * 100_000), 400),
        (
            "/test_program_stdio",
            '{"program": "", "tests": [{"input": 12345678901234567890, "output": 1.50}]}',
            200,
        ),
        ("/v1/judge", '{"programs": [{"id": "a", "language": "py", "program": "\\udcff"}]}', 200),
        ("/v1/judge", '{"programs": [{"id": "a", "language": "py", "program": ""}], "more": 1}', 422),
        ("/v1/judge", '{"programs": []}', 422),
    ],
)
@pytest.mark.anyio
async def test_answers_are_those_of_fastapi(path: str, body: str, status: int) -> None:
    transport = httpx.ASGITransport(application(Echo(), 9))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://sandbox") as client:
        direct, other = [
            await client.post(path, content=body, headers={"Content-Type": kind}) for kind in (PLAIN, OTHER)
        ]
        assert (direct.status_code, direct.content) == (status, other.content)
        assert other.status_code == status
        assert direct.headers["content-type"] == other.headers["content-type"]
        counted = (await client.get("/metrics")).text
    assert f'sandbox_request_seconds_count{{route="{path}",status="{status}"}} 2.0' in counted


@pytest.mark.anyio
async def test_an_ordinary_request_does_not_reach_fastapi() -> None:
    async def fastapi(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError(scope["path"])

    service = Service(Echo(), 9)  # type: ignore[arg-type]
    transport = httpx.ASGITransport(Direct(fastapi, [open_instruct.router(service)], {}))
    async with httpx.AsyncClient(transport=transport, base_url="http://sandbox") as client:
        answer = await client.post("/test_program", json={"program": "a = 1", "tests": ["assert a"]})
        assert answer.json() == {"results": [1], "runtimes": [0.0]}
        with pytest.raises(AssertionError, match="/elsewhere"):
            await client.post("/elsewhere", json={})
    service.close()
