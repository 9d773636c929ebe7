"""Tests of the sandbox over HTTP with hostile and wrong requests: each is refused with a reason, and the server goes on."""

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.sandbox.serving import Server, serving


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("/run_code", '{"code": "", "language": "py", "run_timeout": NaN}', "finite number, got nan"),
        ("/run_code", '{"code": "", "language": "py", "memory_limit_MB": 1e999}', "got inf"),
        ("/run_code", '{"code": "", "language": "py", "memory_limit_MB": true}', "valid integer, got True"),
        (
            "/run_code",
            '{"code": "", "language": "py", "memory_limit_MB": 3}',
            "at least 16777216 and at most",
        ),
        (
            "/run_code",
            '{"code": "", "language": "py", "memory_limit_MB": %s}' % ("9" * 4000),
            "got a number of more than 15 digits",
        ),
        ("/run_code", '{"code": "", "language": "py", "memory_limit_MB": %s}' % ("9" * 5000), "4300 digits"),
        ("/run_code", '{"code": "", "language": "py", "run_timeout": "\\ud800"}', "got '\\\\ud800'"),
        ("/run_code", '{"code": "", "language": "py", "langage": "py"}', "unknown field langage"),
        (
            "/run_code",
            '{"code": "", "language": "py", "args": ["a\\u0000"]}',
            "args[0]: expected text without",
        ),
        (
            "/run_code",
            '{"code": "", "language": "py", "args": ["\\ud800"]}',
            "args[0]: expected text without",
        ),
        ("/run_code", '{"code": "", "language": "py", "args": ["%s"]}' % ("a" * 70_000), "got 70000 bytes"),
        (
            "/run_code",
            '{"code": "", "language": "py", "files": {"%s": ""}}' % ("é" * 150),
            "at most 200 bytes",
        ),
        ("/run_code", '{"code": "", "language": "py", "files": {"\\ud800": ""}}', "a file's name has to be"),
        (
            "/run_code",
            '{"code": "", "language": "py", "files": {"a": "", "./a": ""}}',
            "have the same name, 'a'",
        ),
        (
            "/run_code",
            '{"code": "", "language": "py", "files": {"a/b": "", "a": ""}}',
            "have the same name, 'a'",
        ),
        (
            "/run_code",
            '{"code": "import main", "language": "py", "files": {"./main.py": "eD0x"}}',
            "'main.py' is the program's own name here",
        ),
        (
            "/run_code",
            '{"code": "", "language": "py", "fetch_files": ["\\udcff"]}',
            "expected names in UTF-8",
        ),
        ("/run_code", "{", "the body is not JSON: Expecting property name"),
        ("/run_code", "", "the body is empty"),
        ("/run_code", "[]", "expected a JSON object"),
        ("/run_code", "[" * 100_000, "maximum recursion depth"),
        (
            "/test_program",
            '{"program": "", "tests": [' + "[" * 500 + "]" * 500 + "]}",
            "tests[0]: expected text",
        ),
        ("/test_program_stdio", '{"program": "", "tests": [], "max_execution_time": NaN}', "got nan"),
        ("/test_program_stdio", '{"program": "", "tests": [], "max_execution_time": 1e9}', "at most 120"),
        ("/v1/judge", '{"programs": [{"\\ud800": 1}]}', "expected an object with the fields"),
        (
            "/v1/judge",
            '{"programs": [{"id": "a", "language": "py", "program": "", "limits": {"\\ud800": 1}}]}',
            "limits: expected an object with fields of",
        ),
        ("/v1/judge", '{"programs": [{"%s": 1}]}' % ("a" * 70_000), "expected an object with the fields"),
        ("/v1/judge", "NaN", "expected a JSON object"),
        ("/v1/judge", '{"programs": [1e999]}', "programs.0: Input should be a valid dictionary, got inf"),
        (
            "/v1/judge",
            '{"programs": [{"id": "a", "language": "py", "program": "", "limits": {"processes": %s}}]}'
            % ("9" * 4000),
            "processes: got a number of more than 15 digits",
        ),
        (
            "/v1/judge",
            '{"programs": [{"id": "a", "language": "py", "program": "", "stop": 1}]}',
            "unknown field 'stop'",
        ),
        (
            "/v1/judge",
            '{"programs": [{"id": "a", "language": "py", "prompt": "", "completion": "", "tests": "", "audit": "some"}]}',
            "some",
        ),
        (
            "/v1/judge",
            json.dumps(
                {
                    "programs": [
                        {
                            "id": "a",
                            "language": "py",
                            "program": "",
                            "cases": [{"stdin": "", "stdout": ""}] * 1001,
                        }
                    ]
                }
            ),
            "cases: got 1001, allowed are at most 1000",
        ),
        *(
            ("/v1/judge", json.dumps({"programs": [{"id": "a", **fields, name: "x" * 70_000}]}), said)
            for fields, name, said in (
                ({"program": ""}, "language", "unknown language 'xxx"),
                ({"program": "", "language": "py"}, "compare", "unknown rule to compare output by: 'xxx"),
                ({"program": "", "language": "py"}, "every_case", "expected true or false, got 'xxx"),
                (
                    {"prompt": "", "completion": "", "tests": "", "language": "py"},
                    "audit",
                    "expected off, all or sample",
                ),
            )
        ),
    ],
)
def test_hostile_bodies_are_refused(server: Server, path: str, text: str, message: str) -> None:
    answer = httpx.post(server.url + path, content=text, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422), answer.text
    assert message in json.dumps(answer.json()["detail"], ensure_ascii=False), answer.text
    assert len(answer.json()["detail"]) < 500, "an answer quotes only a part of what it was sent"


def test_a_body_of_another_type_is_refused(server: Server) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/octet-stream"):
        answer = httpx.post(server.url + "/run_code", content=b"\xff{", headers={"Content-Type": kind})
        assert (answer.status_code, "Content-Type: application/json" in answer.json()["detail"]) == (
            422,
            True,
        )


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"version": 3}, "version: Input should be a valid string, got 3"),
        ({"files": []}, "files: List should have at least 1 item"),
        ({"run_memory_limit": 1}, "bytes of memory: got 1, allowed is at least 16777216"),
        ({"other": 1}, "unknown field other"),
        (
            {"files": [{"content": "1"}, {"content": "2", "name": "main.py"}]},
            "is the program's own name here",
        ),
        ({"run_timeout": 1e9}, "seconds of a run: got 1e+06, allowed is more than 0 and at most 120"),
    ],
)
def test_piston_refuses_in_its_own_form(server: Server, more: dict[str, Any], message: str) -> None:
    body = {"language": "py", "version": "*", "files": [{"content": "print(1)"}]}
    answer = server.post("/api/v2/execute", body | more)
    assert (answer.status_code, list(answer.json())) == (400, ["message"])
    assert message in answer.json()["message"]


def test_the_description_of_the_routes_says_how_they_refuse_and_its_examples_pass(server: Server) -> None:
    described = httpx.get(server.url + "/openapi.json").json()
    for path in ("/run_code", "/test_program", "/test_program_stdio", "/v1/judge", "/api/v2/execute"):
        answers = described["paths"][path]["post"]["responses"]
        wrong = "4XX" if path == "/api/v2/execute" else "422"
        assert {"200", wrong, "401", "413", "503", "504"} <= set(answers), path
        body = described["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"][
            "$ref"
        ]
        [example] = described["components"]["schemas"][body.split("/")[-1]]["examples"]
        answer = server.post(path, example)
        assert answer.status_code == 200, answer.text
        assert any(word in answer.text for word in ('"stdout":"42', '"results":[1]', '"passed"')), answer.text
        for status in set(answers) - {"200"}:
            [(kind, of)] = answers[status]["content"].items()
            name = "Message" if status == "4XX" else "Refused"
            assert (kind, of["schema"]["$ref"]) == ("application/json", f"#/components/schemas/{name}")
    metrics = described["paths"]["/metrics"]["get"]["responses"]
    assert [list(metrics[status]["content"]) for status in ("200", "401")] == [
        ["text/plain"],
        ["application/json"],
    ]
    judged = described["paths"]["/v1/judge"]["post"]["responses"]["200"]
    assert list(judged["content"]) == ["application/x-ndjson"]
    rows = described["components"]["schemas"]["Judge"]["properties"]["programs"]["items"]["oneOf"]
    assert [row["required"][-1] for row in rows] == ["program", "tests"]
    limits = rows[0]["properties"]["limits"]["anyOf"][0]["properties"]
    assert limits["cpu_seconds"] == {"type": "number", "exclusiveMinimum": 0, "maximum": 120}


def raw(server: Server, *parts: bytes) -> bytes:
    """All that the server answers to `parts`, each of which is sent by itself, until it closes the connection."""
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=30) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in parts:
            client.sendall(part)
            time.sleep(0.002)
        return b"".join(iter(lambda: client.recv(1 << 16), b""))


def asking(more: str, text: str = '{"code": "echo $((6 * 7))", "language": "bash"}') -> bytes:
    """A request with `more` headers."""
    head = f"POST /run_code HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{more}Content-Length: {len(text)}\r\n\r\n"
    return (head + text).encode()


def test_a_request_that_offers_another_protocol_keeps_its_body(server: Server) -> None:
    """Java's HTTP client offers HTTP/2 in each request. The server may ignore an offer, but not the body."""
    offer = "Connection: Upgrade, HTTP2-Settings{}\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n"
    last = asking(offer.format(", close"))
    for parts in ([last], [last[:-30], last[-30:]], [last[at : at + 1] for at in range(len(last))]):
        answer = raw(server, *parts)
        assert answer.startswith(b"HTTP/1.1 200 "), answer
        assert b'"stdout":"42\\n"' in answer
    answers = raw(server, asking(offer.format("")) * 3 + last)
    assert (answers.count(b"HTTP/1.1 200 "), answers.count(b"HTTP/1.1 ")) == (4, 4), answers
    hidden = asking(offer.format(", close"), "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
    assert raw(server, hidden).count(b"HTTP/1.1 ") == 1, "a body is no further request"
    assert raw(server, b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n").startswith(b"HTTP/1.1 400 ")


def test_head_is_answered_as_get_without_the_body(server: Server) -> None:
    for path in ("/health", "/v1/ping", "/metrics", "/api/v2/runtimes"):
        answer = httpx.head(server.url + path, timeout=60)
        assert (answer.status_code, answer.content) == (200, b""), path
        assert int(answer.headers["Content-Length"]) > 0
    assert httpx.head(server.url + "/run_code").status_code == 405


def test_the_headers_of_a_request_are_bounded_and_those_of_many_are_not(server: Server) -> None:
    with httpx.Client() as client:  # one connection, 100 KiB of headers in all
        pages = [client.get(server.url + "/health", headers={"A": "b" * 2048}) for _ in range(50)]
    assert {page.status_code for page in pages} == {200}
    address = server.url.removeprefix("http://").split(":")
    with socket.create_connection((address[0], int(address[1])), timeout=10) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\nA: ")
        with pytest.raises(OSError):
            client.sendall(b"b" * (64 << 20))
