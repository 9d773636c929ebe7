"""Tests of the sandbox over HTTP: the dialects, limits, a full queue, disconnected clients, sandbox failures, shutdown."""

import json
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from sandbox.client import Cancel, Sandbox
from sandbox.errors import BackendUnavailable, Cancelled
from sandbox.serve.app import application
from sandbox.serve.service import waited
from sandbox.verdicts import Case, Phase, Program, Result, Verdict
from tests.command import wait_until
from tests.needs import need_tools
from tests.sandbox.serving import Server, serving


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


def run_code(server: Server, code: str, language: str = "python", **more: Any) -> Any:
    answer = server.post("/run_code", {"code": code, "language": language} | more)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_sandbox_fusions_answers(server: Server) -> None:
    right = run_code(server, "print(int(input()) + 1)", stdin="41", files={}, fetch_files=[])
    assert (right["status"], right["message"], right["compile_result"]) == ("Success", "", None)
    ran = right["run_result"]
    assert (ran["status"], ran["return_code"], ran["stdout"], ran["stderr"]) == ("Finished", 0, "42\n", "")
    assert ran["execution_time"] > 0
    wrong = run_code(server, "import sys\nsys.exit(3)")
    assert (wrong["status"], wrong["run_result"]["return_code"]) == ("Failed", 3)
    killed = run_code(server, "import os\nos.kill(os.getpid(), 11)")
    assert (killed["status"], killed["run_result"]["return_code"]) == ("Failed", -11)
    slow = run_code(server, "while True: pass", run_timeout=0.5)
    assert (slow["status"], slow["run_result"]["status"]) == ("Failed", "TimeLimitExceeded")
    assert slow["run_result"]["return_code"] is None


def test_a_client_that_compares_the_output_itself_gets_the_whole_of_it(server: Server) -> None:
    code = "print(*range(300_000))"
    expected = " ".join(map(str, range(300_000))) + "\n"
    assert run_code(server, code)["run_result"]["stdout"] == expected
    assert execute(server, "python", code)["run"]["stdout"] == expected
    endless = run_code(server, "while True:\n    print('x' * 1000)")["run_result"]
    assert (endless["return_code"], len(endless["stdout"]) <= 65_536) == (-9, True)


def test_an_exit_code_above_128_is_no_signal_unless_there_is_one(server: Server) -> None:
    for code, fusion, piston, name, status in (
        (255, 255, 255, None, "RE"),
        (200, 200, 200, None, "RE"),
        (137, -9, None, "SIGKILL", "SG"),
    ):
        program = f"import os\nos._exit({code})"
        assert run_code(server, program)["run_result"]["return_code"] == fusion
        ran = execute(server, "python", program)["run"]
        assert (ran["code"], ran["signal"], ran["status"]) == (piston, name, status)


def test_sandbox_fusion_adds_phps_tag(server: Server) -> None:
    need_tools("php")
    for code in ("\n  <?php\necho 1 + 1;", "echo 1 + 1;"):
        assert run_code(server, code, "php")["run_result"]["stdout"] == "2"


def test_sandbox_fusions_compiler(server: Server) -> None:
    built = run_code(server, '#include <cstdio>\nint main() { puts("built"); }', "cpp")
    assert built["status"] == "Success"
    assert (built["compile_result"]["status"], built["compile_result"]["return_code"]) == ("Finished", 0)
    assert built["run_result"]["stdout"] == "built\n"
    refused = run_code(server, "int main() { return x; }", "cpp")
    assert (refused["status"], refused["run_result"]) == ("Failed", None)
    assert refused["compile_result"]["return_code"] == 1
    assert "x" in refused["compile_result"]["stderr"]


def test_sandbox_fusions_files(server: Server) -> None:
    code = "import sys\nopen('out.txt', 'w').write(open('data/in.txt').read() + sys.argv[1])"
    answer = run_code(
        server,
        code,
        files={"data/in.txt": "aGk=", "none": None},
        fetch_files=["out.txt", "other"],
        args=["!"],
    )
    assert (answer["status"], answer["files"]) == ("Success", {"out.txt": "aGkh"}), answer


def test_a_missing_library_is_told_and_counted(server: Server) -> None:
    told = "dependency_missing: no_such is not found here; see Libraries in sandbox/README.md"
    before = server.metric("sandbox_dependency_missing_total")
    answer = run_code(server, "import no_such")
    assert (answer["status"], answer["message"]) == ("Failed", told)
    answer = execute(server, "python", "import no_such.part")
    assert answer["run"]["message"] == f"runtime_error; {told}"
    answer = execute(server, "cpp", "#include <no/such.h>")
    assert answer["compile"]["message"] == f"compile_error; {told.replace('no_such', 'no/such.h')}"
    assert execute(server, "python", "1/0")["run"]["message"] == "runtime_error"
    assert server.metric("sandbox_dependency_missing_total") == before + 3


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"language": "pythn"}, "unknown language 'pythn'; did you mean python?"),
        ({"run_timeout": 1000}, "seconds of a run: got 1000, allowed is more than 0 and at most 120"),
        ({"run_timeout": -1}, "seconds of a run: got -1"),
        ({"memory_limit_MB": 100_000}, "bytes of memory: got 1.04858e+11"),
        ({"files": {"../a.txt": "aGk="}}, "a file's name has to be a relative path without '..'"),
        ({"files": {"a.txt": "a"}}, "its content is not base64"),
        ({"fetch_files": ["/etc/passwd"]}, "a file's name has to be a relative path"),
        ({"code": 3}, "valid string"),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(server: Server, body: dict[str, Any], message: str) -> None:
    answer = server.post("/run_code", {"code": "", "language": "python"} | body)
    assert answer.status_code == 422
    assert message in json.dumps(answer.json()["detail"], ensure_ascii=False)


def execute(server: Server, language: str, content: str, **more: Any) -> Any:
    body = {"language": language, "version": "*", "files": [{"content": content}]} | more
    answer = server.post("/api/v2/execute", body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_pistons_answers(server: Server) -> None:
    right = execute(server, "python", "print(input())", stdin="hello")
    assert (right["language"], right["run"]["stdout"], right["run"]["output"]) == ("py", "hello\n", "hello\n")
    assert (right["run"]["code"], right["run"]["signal"], right["run"]["status"]) == (0, None, None)
    assert "compile" not in right
    failed = execute(server, "c++", "int main() { return 7; }")
    assert (failed["compile"]["code"], failed["run"]["code"], failed["run"]["status"]) == (0, 7, "RE")
    refused = execute(server, "c++", "int main() {")
    assert refused["compile"]["code"] == 1
    assert refused["run"] == refused["compile"]
    slow = execute(server, "python", "while True: pass", run_timeout=500)
    assert (slow["run"]["signal"], slow["run"]["code"], slow["run"]["status"]) == ("SIGKILL", None, "TO")
    killed = execute(server, "c++", "#include <cstdlib>\nint main() { abort(); }")
    assert (killed["run"]["signal"], killed["run"]["code"], killed["run"]["status"]) == (
        "SIGABRT",
        None,
        "SG",
    )


def test_pistons_files_and_arguments(server: Server) -> None:
    files = [
        {"name": "a.bin", "content": "00ff", "encoding": "hex"},
        {
            "name": "main.py",
            "content": "import sys\nprint(open('a.bin', 'rb').read(), open('b').read(), sys.argv[1:])",
        },
        {"name": "b", "content": "text"},
    ]
    answer = server.post(
        "/api/v2/execute", {"language": "py", "version": "3", "files": files, "args": ["x", "y"]}
    )
    assert answer.json()["run"]["stdout"] == "b'\\x00\\xff' text ['x', 'y']\n", answer.text
    files[0]["content"] = "no hex"
    refused = server.post("/api/v2/execute", {"language": "py", "version": "3", "files": files})
    assert (refused.status_code, "message" in refused.json()) == (400, True)


def test_pistons_errors_and_runtimes(server: Server) -> None:
    body = {"language": "nothing", "version": "*", "files": [{"content": ""}]}
    answer = server.post("/api/v2/execute", body)
    assert (answer.status_code, list(answer.json())) == (400, ["message"])
    found = {row["language"]: row for row in httpx.get(server.url + "/api/v2/runtimes", timeout=60).json()}
    assert {"py", "cpp"} <= set(found)
    assert "c++" in found["cpp"]["aliases"]


def test_open_instructs_answers(server: Server) -> None:
    add = "def add(a, b):\n    return a + b\n"
    tests = ["assert add(1, 2) == 3", "assert add(0, 0) == 1", "import os\nassert os.sep == '/'", "add("]
    answer = server.post("/test_program", {"program": add, "tests": tests})
    assert answer.json()["results"] == [1, 0, 1, 0]
    assert [seconds > 0 for seconds in answer.json()["runtimes"]] == [True, False, True, False]
    assert server.post("/test_program", {"program": add, "tests": json.dumps(tests)}).json()["results"] == [
        1,
        0,
        1,
        0,
    ]
    exits = server.post("/test_program", {"program": "import os\nos._exit(0)", "tests": ["assert False"]})
    assert exits.json()["results"] == [0], "a program that ends before its test has not passed it"
    program = "n = int(input())\nif n > 2:\n    while True: pass\nprint(n + 1)\n"
    rows = [{"input": f"{n}\n", "output": f"{n + 1}\n"} for n in (1, 2, 3)]
    rows[1]["output"] = "4\n"
    answer = server.post(
        "/test_program_stdio", {"program": program, "tests": rows, "max_execution_time": 0.5}
    )
    assert answer.json()["results"] == [1, 0, 0]
    assert server.post("/test_program", {"program": "", "tests": []}).json() == {
        "results": [],
        "runtimes": [],
    }
    for wrong in ("eJxrYHmQDgAEPwHf", {"a": 1}, 3, ["pass"] * 1001, [1]):
        assert server.post("/test_program", {"program": "", "tests": wrong}).status_code == 422


def test_a_program_may_sleep_for_no_longer_than_its_time_limit(server: Server) -> None:
    def sleeps(seconds: float) -> str:
        return f"import time\ntime.sleep({seconds})\nprint('awake')"

    ran = run_code(server, sleeps(1.5), run_timeout=1)
    assert (ran["status"], ran["run_result"]["status"]) == ("Failed", "TimeLimitExceeded")
    assert (ran["run_result"]["return_code"], ran["run_result"]["stdout"]) == (None, "awake\n")
    assert run_code(server, sleeps(0.5), run_timeout=1)["status"] == "Success"
    assert execute(server, "python", sleeps(1.5), run_timeout=1000)["run"]["status"] == "TO"
    assert execute(server, "python", sleeps(1.5), run_cpu_time=1000)["run"]["status"] is None
    tests = {"program": sleeps(1.5), "tests": ["pass"], "max_execution_time": 1}
    assert server.post("/test_program", tests).json() == {"results": [0], "runtimes": [-1]}
    tests["tests"] = [{"input": "", "output": "awake"}]
    assert server.post("/test_program_stdio", tests).json() == {"results": [0], "runtimes": [-1]}


def test_a_program_that_computes_may_wait_for_a_processor() -> None:
    busy = Result("0", Verdict.passed, 0, run_seconds=2.5, cpu_seconds=1.6)
    assert waited(busy, 1) is busy  # 0.9 s of waiting
    idle = Result("0", Verdict.passed, 0, run_seconds=2.5, cpu_seconds=1.2)
    assert waited(idle, 1).verdict is Verdict.timeout  # 1.3 s
    unstarted = Result(
        "0", Verdict.compile_error, 1, compiled=Phase(Verdict.compile_error, 1, 9, 1, 0, "", "")
    )
    assert waited(unstarted, 1) is unstarted


def test_results_are_streamed_as_they_end(server: Server) -> None:
    rows = [
        {"id": "slow", "language": "py", "program": "import time\ntime.sleep(3)"},
        {"id": "fast", "language": "py", "program": "print(1)"},
        {
            "id": "unreadable",
            "language": "py",
            "prompt": "def f():\n",
            "completion": "```python\n```",
            "tests": "",
        },
    ]
    started, seconds, found = time.monotonic(), {}, {}
    with httpx.stream("POST", server.url + "/v1/judge", json={"programs": rows}, timeout=60) as answer:
        assert answer.headers["content-type"] == "application/x-ndjson"
        for line in answer.iter_lines():
            result = Result.from_json(json.loads(line))
            found[result.id], seconds[result.id] = result.verdict, time.monotonic() - started
    assert found == {"fast": Verdict.passed, "slow": Verdict.passed, "unreadable": Verdict.wrong_answer}
    assert seconds["fast"] + 1 < seconds["slow"]


def test_every_case_is_reported(server: Server) -> None:
    cases = [{"stdin": f"{n}\n", "stdout": f"{abs(n)}\n"} for n in (1, -2, 3)]
    row = {"id": "a", "language": "py", "program": "print(int(input()))", "cases": cases}
    stopped = json.loads(server.post("/v1/judge", {"programs": [row]}).text)
    assert (stopped["verdict"], "cases" in stopped) == ("wrong_answer", False)
    whole = json.loads(server.post("/v1/judge", {"programs": [row | {"every_case": True}]}).text)
    assert [case["verdict"] for case in whole["cases"]] == ["passed", "wrong_answer", "passed"]
    assert [case["stdout"] for case in whole["cases"]] == ["1\n", "-2\n", "3\n"]
    assert Result.from_json(whole).pass_rate == pytest.approx(2 / 3)


def test_a_failed_checker_is_told_as_a_result_that_nobody_retries(server: Server) -> None:
    errors = server.metric("sandbox_errors_total")
    row = {"language": "py", "program": "print(1)", "cases": [{"stdin": "", "stdout": ""}]}
    for checker in ("1/0", "print('yes')"):
        broken = row | {"checker": {"language": "py", "program": checker}}
        alone = server.post("/v1/judge", {"programs": [broken | {"id": "a"}]})
        assert alone.status_code == 200, alone.text
        several = server.post("/v1/judge", {"programs": [broken | {"id": "a"}, row | {"id": "b"}]})
        [told] = [json.loads(line) for line in several.text.splitlines() if '"a"' in line]
        for result in (json.loads(alone.text), told):
            assert result["verdict"] == "sandbox_error"
            assert result["note"].startswith("checker_failed: ")
            assert "the checker (py) failed" in result["stderr"]
    assert server.metric("sandbox_errors_total") == errors


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": "a", "language": "xx", "program": ""}], "programs[0]: unknown language 'xx'"),
        ([{"id": "a", "language": "py", "program": ""}] * 2, "programs[1]: id 'a' is used twice"),
        ([{"id": "a", "language": "py"}], "programs[0]: expected an object with the fields"),
        (
            [{"id": "a", "language": "py", "program": "", "limits": {"cpu_seconds": 500}}],
            "seconds of a run: got 500, allowed",
        ),
        (
            [{"id": "a", "language": "py", "program": "", "limits": {"wall_seconds": 1e6}}],
            "wall_seconds: got 1e+06, allowed is more than 0 and at most 360",
        ),
    ],
)
def test_wrong_rows_are_refused(server: Server, rows: list[dict[str, Any]], message: str) -> None:
    answer = server.post("/v1/judge", {"programs": rows})
    assert (answer.status_code, message in answer.json()["detail"]) == (422, True), answer.text


def sleepers(mark: str) -> list[str]:
    """The processes that run a program with `mark` in its source."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if b"SANDBOX_MARK=" + mark.encode() in path.read_bytes():
                found.append(path.parent.name)
        except OSError:
            continue
    return found


def marked(mark: str) -> str:
    """A program that can be found by its mark, in a child process of its own, and does not end."""
    return f"import os, subprocess\nsubprocess.run(['sleep', '1000'], env={{**os.environ, 'SANDBOX_MARK': '{mark}'}})"


def test_a_client_that_hangs_up_ends_its_program(server: Server) -> None:
    before = server.metric("sandbox_cancelled_total")

    def ask() -> None:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(
                server.url + "/run_code", json={"code": marked("gone"), "language": "python"}, timeout=2
            )

    client = threading.Thread(target=ask)
    client.start()
    wait_until(lambda: sleepers("gone"), "the start of the program", seconds=10)
    client.join()
    wait_until(lambda: not sleepers("gone"), "the end of the program", seconds=3)
    wait_until(lambda: server.metric("sandbox_cancelled_total") == before + 1, "the count", seconds=10)
    assert run_code(server, "print(1)")["status"] == "Success"
    assert server.metric("sandbox_running") == server.metric("sandbox_queue") == 0


def test_a_full_queue_says_when_to_come_back() -> None:
    with serving("--queue", "1") as server:
        rows = [{"id": str(at), "language": "py", "program": "print(1)"} for at in range(4)]
        full = server.post("/v1/judge", {"programs": rows})
        assert (full.status_code, full.headers["retry-after"]) == (503, "2")
        assert "with the 4 of this request 2 programs would wait, allowed are 1" in full.json()["detail"]
        assert len(server.post("/v1/judge", {"programs": rows[:3]}).text.splitlines()) == 3
        assert server.metric("sandbox_refused_total") == 1
        known = {
            "id": "known",
            "language": "py",
            "prompt": "def f():\n",
            "completion": "```python\n```",
            "tests": "",
        }
        assert server.post("/v1/judge", {"programs": [known, *rows]}).status_code == 503


def test_a_new_language_keeps_nobody_waiting() -> None:
    """The server asks a worker about it, and all workers may be busy."""
    with serving() as server:
        bodies = [{"code": f"import time\ntime.sleep(4) # {at}", "language": "python"} for at in range(2)]
        bodies.append({"code": "echo new", "language": "bash"})
        answers: list[httpx.Response] = []
        clients = []
        for body in bodies:
            clients.append(
                threading.Thread(target=lambda body=body: answers.append(server.post("/run_code", body)))
            )
            clients[-1].start()
            wait_until(
                lambda: server.metric("sandbox_running") >= min(len(clients), 2), "the programs", seconds=10
            )
        started = time.monotonic()
        assert httpx.get(server.url + "/health", timeout=2).json() == {"status": "healthy"}
        assert time.monotonic() - started < 2
        for client in clients:
            client.join()
        assert [answer.json()["status"] for answer in answers] == ["Success"] * 3


def test_a_token_and_a_large_body() -> None:
    with serving(SANDBOX_TOKEN="open sesame") as server:
        body = {"code": "print(1)", "language": "python"}
        for given in ({}, {"Authorization": "Bearer open"}, {"Authorization": "open sesame"}):
            refused = server.post("/run_code", body, headers=given)
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        right = {"Authorization": "Bearer open sesame"}
        assert server.post("/run_code", body, headers=right).json()["status"] == "Success"
        assert httpx.get(server.url + "/metrics").status_code == 401
        described = httpx.get(server.url + "/openapi.json", headers=right).json()["paths"]
        assert described["/run_code"]["post"]["security"] == [{"token": []}]
        assert described["/v1/ping"]["get"]["security"] == described["/health"]["get"]["security"] == []
        assert httpx.get(server.url + "/health").json() == {"status": "healthy"}
        large = json.dumps(body | {"code": "#" * (17 << 20)}).encode()
        for content in (
            large,
            iter([large[: 9 << 20], large[9 << 20 :]]),
        ):  # with Content-Length, and in chunks
            answer = httpx.post(
                server.url + "/run_code",
                content=content,
                headers=right | {"Content-Type": "application/json"},
                timeout=60,
            )
            assert (answer.status_code, "16777216 bytes" in answer.json()["detail"]) == (413, True)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_behind_by_a_server_that_ends(how: signal.Signals) -> None:
    with serving() as server:
        mark = f"left-{how.name}"
        answers = []

        def ask() -> None:
            with suppress(httpx.TransportError):  # by SIGKILL
                answers.append(server.post("/run_code", {"code": marked(mark), "language": "python"}))

        client = threading.Thread(target=ask)
        client.start()
        wait_until(lambda: sleepers(mark), "the start of the program", seconds=10)
        server.process.send_signal(how)
        server.process.wait(timeout=20)
        wait_until(lambda: not sleepers(mark), "the end of the program", seconds=10)
        client.join()
    if how is signal.SIGTERM:
        [answer] = answers
        assert (answer.status_code, "the server ends" in answer.json()["detail"]) == (503, True)
        assert int(answer.headers["Retry-After"]) > 0


class Failing:
    """A sandbox that fails on every program, or is gone."""

    backend = "process"
    workers = 1

    def __init__(self, error: Exception | None) -> None:
        self.error = error

    def check(self, program: Program) -> None:
        """All languages are there."""

    def run(self, programs: list[Program], cancel: Cancel | None = None) -> Iterator[Result]:
        """Judge none."""
        if self.error:
            raise self.error
        yield from (Result(program.id, Verdict.sandbox_error, stderr="no disk") for program in programs)

    def close(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize("error", [None, Cancelled("the daemon is gone")])
@pytest.mark.anyio
async def test_a_sandbox_that_fails_is_a_gateway_timeout(error: Exception | None) -> None:
    app = application(Failing(error), 1)  # type: ignore[arg-type]
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://sandbox") as client:
        answers = [
            await client.post("/run_code", json={"code": "", "language": "python"}),
            await client.post("/test_program", json={"program": "", "tests": ["pass"]}),
            await client.post("/v1/judge", json={"programs": [{"id": "a", "language": "py", "program": ""}]}),
            await client.post(
                "/api/v2/execute", json={"language": "py", "version": "*", "files": [{"content": ""}]}
            ),
        ]
        assert [answer.status_code for answer in answers] == [504] * 4
        assert all("was not judged" in answer.json()["detail"] for answer in answers)
        text = (await client.get("/metrics")).text
        assert "sandbox_errors_total 4.0" in text


class Gone(Failing):
    """A sandbox whose backend is gone before it has seen any language."""

    def check(self, program: Program) -> None:
        """The daemon does not answer."""
        raise BackendUnavailable("no daemon")


@pytest.mark.anyio
async def test_a_backend_that_is_gone_from_the_start_is_a_gateway_timeout_too() -> None:
    transport = httpx.ASGITransport(application(Gone(None), 1))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://sandbox") as client:
        answer = await client.post("/run_code", json={"code": "", "language": "python"})
        assert (answer.status_code, "no daemon" in answer.json()["detail"]) == (504, True)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def test_a_call_can_be_cancelled_from_python() -> None:
    with Sandbox("process", workers=2) as sandbox:
        cancel = Cancel()
        threading.Thread(
            target=lambda: (
                wait_until(lambda: sleepers("cancelled"), "the start of the program", seconds=10),
                cancel.cancel(),
            )
        ).start()
        with pytest.raises(Cancelled):
            list(
                sandbox.run([Program("a", "py", marked("cancelled")), Program("b", "py", "print(1)")], cancel)
            )
        assert not sleepers("cancelled")
        results = sandbox.run([Program("c", "py", "print(1)"), Program("d", "py", marked("closed"))])
        assert next(results).id == "c"
        wait_until(lambda: sleepers("closed"), "the start of the program", seconds=10)
        results.close()
        wait_until(lambda: not sleepers("closed"), "the end of the program", seconds=3)
        [again] = sandbox.run([Program("e", "py", "print(1)", (Case("", "1"),))])
        assert again.verdict is Verdict.passed


def test_figures_of_waiting_and_of_requests(server: Server) -> None:
    run_code(server, "print(1)")
    text = httpx.get(server.url + "/metrics")
    assert text.headers["content-type"].startswith("text/plain; version=")
    for name in ("sandbox_wait_seconds_bucket", "sandbox_program_seconds_bucket", "process_open_fds"):
        assert f"\n{name}" in text.text
    assert re.search(
        r'\nsandbox_request_seconds_bucket\{le="\+Inf",route="/run_code",status="200"\} ', text.text
    )
    httpx.get(server.url + "/such/a/path")
    assert 'route="other",status="404"' in httpx.get(server.url + "/metrics").text


CHEATS = "class Always:\n    def __eq__(self, other):\n        return True\n\ndef add(a, b):\n    return Always()\n"


def test_an_audit_finds_a_cheat_over_http() -> None:
    row = {"id": "a", "language": "py", "prompt": "", "completion": CHEATS, "tests": "assert add(1, 2) == 3"}
    honest = {"id": "b", "completion": "def add(a, b):\n    return a + b\n"}
    tests = {"program": CHEATS, "tests": ["assert add(1, 2) == 3"]}
    right = {"program": honest["completion"], "tests": ["assert add(1, 2) == 3"]}
    with serving("--audit", "all") as server:
        assert server.post("/test_program", tests).json()["results"] == [0]
        assert server.post("/test_program", right).json()["results"] == [1]
        lines = server.post("/v1/judge", {"programs": [row, row | honest]}).text.splitlines()
        found = {result["id"]: result for result in map(json.loads, lines)}
        assert {name: result["verdict"] for name, result in found.items()} == {"a": "tampered", "b": "passed"}
        assert found["b"]["audited"] == "split"
        off = server.post("/v1/judge", {"programs": [row | {"audit": "off"}]})
        assert off.json()["verdict"] == "passed"
        assert 'sandbox_programs_total{language="py",verdict="tampered"} 2.0' in server.text("/metrics")
    with serving() as server:
        assert server.post("/test_program", tests).json()["results"] == [1], "off by default"
        assert (
            server.post("/v1/judge", {"programs": [row | {"audit": "all"}]}).json()["verdict"] == "tampered"
        )


def test_pistons_files_of_any_text_are_taken_and_wrong_hex_is_named(server: Server) -> None:
    body = {"language": "python", "version": "*"}
    read = {"content": "print(open('x', 'rb').read())"}
    text = body | {"files": [read, {"name": "x", "content": "\udcff"}]}
    answer = httpx.post(
        server.url + "/api/v2/execute",
        content=json.dumps(text),
        headers={"Content-Type": "application/json"},
        timeout=60,
    )
    assert (answer.status_code, answer.json()["run"]["stdout"]) == (200, "b'\\xff'\n"), answer.text
    wrong = server.post(
        "/api/v2/execute", body | {"files": [read, {"name": "x", "content": "zz", "encoding": "hex"}]}
    )
    assert (wrong.status_code, wrong.json()["message"][:36]) == (400, "file 'x': its content is not hex: no")
