"""Tests of the studio: its routes, who may ask it, and its page in a real browser with hostile texts."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")
import uvicorn
from fastapi.testclient import TestClient

from flows.cli import main
from flows.cli_studio import listen
from sandbox.verdicts import Verdict
from selftrain.generate.generator import Generator
from selftrain.rerank.normal import Normal
from selftrain.rerank.reranker import Reranker
from selftrain.serve.served import Problem, Ranked, Served, Wanted
from selftrain.studio.app import application
from tests.selftrain.report.test_in_browser import PALE, SMALL, browser, serious  # noqa: F401 - a fixture

PROMPT = "def addx(n):  # n + 3\n"
RIGHT, WRONG = "    return n + 3\n", "    return n\n"
HOSTILE = "    return '</textarea><script>document.title = 1</script><img src=x onerror=alert(1)>\u202e'\n"


class Judged:
    """A sandbox that passes programs with `n + 3` in their body."""

    def __enter__(self) -> "Judged":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, programs: Any) -> Iterator[Any]:
        for program in reversed(programs):  # results come in any order
            passed = RIGHT in program.source and "exit" not in program.source
            yield SimpleNamespace(id=program.id, verdict=Verdict.passed if passed else Verdict.wrong_answer)


@pytest.fixture(scope="module")
def served(reranker: Path) -> Served:
    return Wanted(str(reranker)).load()


@pytest.fixture(scope="module")
def app(served: Served, generator: Path) -> Any:
    return application(served, lambda: Generator.load(generator), Judged)


@pytest.fixture
def client(app: Any) -> TestClient:
    return TestClient(app, base_url="http://127.0.0.1:8082")


def test_candidates_are_scored_judged_and_ordered(client: TestClient, reranker: Path) -> None:
    texts = [WRONG, RIGHT, "  "]
    ask = {"prompt": PROMPT, "candidates": texts, "language": "py", "tests": "assert addx(1) == 4\n"}
    found = client.post("/rank", json=ask).json()
    scores = Reranker.load(reranker).score(PROMPT, texts[:2])
    rows = found["candidates"]
    assert [row["score"] for row in rows[:2]] == pytest.approx(scores, abs=1e-4)
    assert [row["verdict"] for row in rows] == ["wrong_answer", "passed", "wrong_answer"]
    assert found["order"] == sorted([0, 1], key=lambda at: -scores[at])
    assert (rows[2]["score"], rows[2]["tokens"]) == (None, [])
    assert "empty" in rows[2]["refused"]
    assert [row["chance"] for row in rows] == [None] * 3  # a folder has no fit of scores to chances
    assert "".join(text for text, _ in rows[1]["tokens"]) == RIGHT.rstrip()
    silent = client.post("/rank", json=ask | {"tests": ""}).json()
    assert [row["verdict"] for row in silent["candidates"]] == [None] * 3


@pytest.mark.parametrize(("calibrated", "chances"), [(True, [0.25, 0.25]), (False, [None, None])])
def test_a_chance_is_said_only_where_it_is_one_and_the_ranked_form_is_judged(
    calibrated: bool, chances: list[float | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`read` cuts at stop texts, as a run's picker does; without them the sandbox would run more than was ranked."""
    monkeypatch.setattr("selftrain.studio.app.token_scores", lambda _, form: [(form.completion, 0.0)])
    cut = Normal(PROMPT, RIGHT)
    served: Any = SimpleNamespace(
        name="run", way="rm-1", picker=None, calibrated=calibrated, reranker=SimpleNamespace(style="completion"),
        read=lambda prompt, texts, language: Problem(prompt, [Normal(PROMPT, WRONG), cut], language, {}),
        rank=lambda problems: [Ranked([-1.0, 1.0], {}, "unlike its training", "too close")],
        relevance=lambda score: 0.25,
    )  # fmt: skip
    client = TestClient(
        application(served, lambda: pytest.fail("not asked"), Judged), base_url="http://127.0.0.1"
    )
    ask = {
        "prompt": PROMPT,
        "candidates": [WRONG, f"{RIGHT}exit()\n"],
        "language": "py",
        "tests": "assert addx(1)\n",
    }
    found = client.post("/rank", json=ask).json()
    assert [row["chance"] for row in found["candidates"]] == chances
    assert found["candidates"][1]["tokens"] == [[RIGHT, 0.0]]
    assert (found["order"], found["candidates"][1]["verdict"]) == ([1, 0], "passed")
    assert found["doubts"] == ["unlike its training", "too close"]


def test_a_port_that_is_taken_or_none_is_told_before_a_model_is_loaded(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with listen(0) as taken:
        port = taken.getsockname()[1]
        assert main(["studio", "nothing", "--port", str(port)]) == 2
        assert (
            capsys.readouterr().err
            == f"selftrain: --port {port}: cannot be listened on: Address already in use\n"
        )
    assert main(["studio", "nothing", "--port", "70000"]) == 2
    assert "expected 0 to 65535" in capsys.readouterr().err


def test_what_a_person_can_get_wrong_is_told_in_a_line(client: TestClient) -> None:
    ask = {"prompt": PROMPT, "candidates": [RIGHT]}
    for change, said in (
        ({"prompt": " "}, "the prompt is empty"),
        ({"tests": "assert True"}, "choose one"),
        ({"language": "klingon"}, "klingon"),
    ):
        answer = client.post("/rank", json=ask | change)
        assert answer.status_code == 422, change
        assert said in answer.json()["error"]
    assert client.post("/rank", json=ask | {"candidates": []}).status_code == 422
    assert client.post("/rank", json=ask | {"candidates": ["x"] * 65}).status_code == 422


def test_generated_candidates_are_distinct(client: TestClient) -> None:
    found = client.post("/generate", json={"prompt": PROMPT, "n": 4, "max_new_tokens": 6}).json()[
        "candidates"
    ]
    assert 1 <= len(found) == len(set(found)) <= 4


def test_the_same_prompt_gets_other_programs_each_time() -> None:
    seeds = []

    class Writer:
        def sample(self, prompt: str, *_: Any, seed: int, **__: Any) -> list[Any]:
            seeds.append(seed)
            return [SimpleNamespace(text=f"    return {seed}\n")]

    served: Any = SimpleNamespace(name="run", way="rm-1", picker=None)
    writer: Any = Writer()
    client = TestClient(application(served, lambda: writer), base_url="http://127.0.0.1")
    found = [client.post("/generate", json={"prompt": PROMPT}).json()["candidates"] for _ in range(2)]
    assert found == [["    return 0\n"], ["    return 1\n"]]
    assert seeds == [0, 1]


def test_other_pages_and_other_names_cannot_ask(client: TestClient) -> None:
    ask = {"prompt": PROMPT, "candidates": [RIGHT]}
    assert client.post("/rank", json=ask, headers={"Host": "evil.example"}).status_code == 400
    assert client.post("/rank", json=ask, headers={"Origin": "http://evil.example"}).status_code == 403
    assert client.post("/rank", json=ask, headers={"Origin": "null"}).status_code == 403
    assert client.post("/rank", json=ask, headers={"Origin": "http://127.0.0.1:8082"}).status_code == 200
    policy = client.get("/").headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe-inline" not in policy.split("script-src")[1]


@contextmanager
def running(app: Any) -> Iterator[str]:
    """The address of `app`, served until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.05)
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.should_exit = True
        thread.join(30)


@pytest.mark.parametrize(("width", "scheme"), [(400, "dark"), (1280, "light")])
def test_a_person_ranks_pasted_and_generated_programs(
    browser: Any,  # noqa: F811
    app: Any,
    width: int,
    scheme: str,
) -> None:
    complaints: list[str] = []
    with running(app) as address:
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(address)
        page.fill("[name=prompt]", PROMPT)
        page.select_option("[name=language]", "py")
        page.fill("[name=tests]", "assert addx(1) == 4")
        page.click("#add")
        for at, text in enumerate((WRONG, HOSTILE, RIGHT)):
            page.locator("#candidates textarea").nth(at).fill(text)
        page.locator("#rank").focus()
        page.keyboard.press("Enter")
        page.wait_for_selector("#results .pick", timeout=60_000)
        assert page.locator("#results .candidate").count() == 3
        assert sorted(page.locator("#results .facts b").all_text_contents()) == [
            "passed",
            "wrong answer",
            "wrong answer",
        ]
        shown = page.locator("#results .heat").all_text_contents()
        assert any("<img src=x onerror=alert(1)>⟨U+202E⟩" in text for text in shown)
        assert page.locator("#results img, #results script").count() == 0
        assert page.title() == "Studio – selftrain"
        assert page.locator("#results .heat span[title]").count() > 10
        assert page.evaluate("document.documentElement.scrollWidth") == width
        page.fill("[name=n]", "3")
        page.fill("[name=max_new_tokens]", "8")
        page.click("#generate")
        page.get_by_text(" written.").wait_for(timeout=60_000)
        assert page.locator("#candidates textarea").count() > 3
        assert complaints == []
        page.fill("[name=prompt]", " \n")
        page.click("#rank")
        page.wait_for_selector("#said.failed")
        assert "the prompt is empty" in page.text_content("#said")
        context.close()


def test_the_studio_can_be_read_and_worked_by_anyone(browser: Any, app: Any) -> None:  # noqa: F811
    with running(app) as address:
        context = browser.new_context(viewport={"width": 400, "height": 800}, bypass_csp=True)
        page = context.new_page()
        page.goto(address)
        page.fill("[name=prompt]", PROMPT)
        for at, text in enumerate((WRONG, RIGHT)):
            page.locator("#candidates textarea").nth(at).fill(text)
        page.click("#rank")
        page.wait_for_selector("#results .pick", timeout=60_000)
        assert serious(page) == []
        assert page.evaluate(SMALL) == []
        assert page.evaluate(PALE) == []
        context.close()


ODD = {"half a surrogate pair": "\ud800", "NUL": "a\0b", "empty": "", "long": "x" * 10_000_000}
FIELDS = (
    ("/rank", {"prompt": PROMPT, "candidates": [RIGHT], "language": "py", "tests": "assert addx(1) == 4"}),
    ("/generate", {"prompt": PROMPT, "language": "py", "n": 1, "max_new_tokens": 2}),
)


@pytest.mark.parametrize("what", ODD)
def test_no_text_is_a_failure_of_the_server(app: Any, what: str) -> None:
    """Each field takes the text, or its refusal says in a line what is wrong."""
    client = TestClient(app, base_url="http://127.0.0.1:8082", raise_server_exceptions=False)
    for path, ask in FIELDS:
        for field, value in ask.items():
            odd: Any = [ODD[what]] if isinstance(value, list) else ODD[what]
            answer = client.post(
                path, content=json.dumps(ask | {field: odd}), headers={"Content-Type": "application/json"}
            )
            said = (path, field, answer.status_code, answer.text[:200])
            assert answer.status_code in (200, 422), said
            assert answer.status_code == 200 or 5 < len(answer.json()["error"]) < 400, said
