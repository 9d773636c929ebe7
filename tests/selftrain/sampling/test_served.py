"""Tests of engine `openai` against a server that gives the answers of vLLM's and llama.cpp's servers."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from selftrain.config import SampleConfig
from selftrain.errors import RunError, UsageError
from selftrain.sampling import Sample, served
from selftrain.stages.sample import SAMPLE, SampleSlice

KEY = "sk-not-a-real-key"
VLLM = {"tokens": ["token_id:5", "token_id:6"], "token_logprobs": [-0.5, -1.0]}
LLAMA_CPP = {"content": [{"id": 5, "token": "a", "logprob": -0.5}, {"id": 6, "token": "b", "logprob": -1.0}]}


class Server(ThreadingHTTPServer):
    """Answers with `replies`, one after the other and the last for ever: (status, log-probabilities, reason).

    It answers in events, one for each token; without a reason the answer breaks off. `models`: the names of its models; None: it has
    no list of them.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str | None, dict[str, Any]]] = []
        self.replies: list[tuple[int, Any, str]] = [(200, VLLM, "stop")]
        self.models: list[str] | None = None
        self.blanks = 0
        self.lock = Lock()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    def do_POST(self) -> None:
        server: Any = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.asked.append((self.path, self.headers["Authorization"], body))
            status, logprobs, reason = server.replies.pop(0) if len(server.replies) > 1 else server.replies[0]
        if status == 200:
            self.answer(status, "".join(f"data: {event}\n\n" for event in events(logprobs, reason)))
        else:
            told = "." * server.blanks + f"no: {self.headers['Authorization']}"
            self.answer(status, json.dumps({"error": told}))

    def do_GET(self) -> None:
        server: Any = self.server
        names = [{"id": name} for name in server.models or []]
        self.answer(404 if server.models is None else 200, json.dumps({"data": names} if names else {}))

    def answer(self, status: int, text: str) -> None:
        """Send `text`."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def events(logprobs: Any, reason: str) -> list[str]:
    """An answer's events: vLLM's last token comes with the reason, llama.cpp's before it."""
    if logprobs is None:
        parts = [None]
    elif "content" in logprobs:
        parts = [{"content": [one]} for one in logprobs["content"]]
    else:
        pairs = zip(logprobs["tokens"], logprobs["token_logprobs"], strict=True)
        parts = [{"tokens": [token], "token_logprobs": [logprob]} for token, logprob in pairs]
    choices = [{"index": 0, "text": "a", "logprobs": part, "finish_reason": None} for part in parts]
    if reason and parts[0] and "content" in parts[0]:
        choices.append({"index": 0, "text": "", "logprobs": None, "finish_reason": reason})
    elif reason:
        choices[-1]["finish_reason"] = reason
    return [*(json.dumps({"choices": [choice]}) for choice in choices), *(["[DONE]"] if reason else [])]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A running server; tries follow each other at once."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(served, "WAITS", (0.0, 0.0))
    with Server() as made:
        thread = Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def engine(server: Server, generator: Path, **changes: Any) -> served.Engine:
    """An engine that asks the server."""
    url = f"http://127.0.0.1:{server.server_port}/v1/"
    given = {"engine": "openai", "base_url": url, "served_model": "m@1", "max_new_tokens": 12} | changes
    return served.Engine(generator, SampleConfig(**given))


def test_what_a_server_is_asked_for(server: Server, generator: Path):
    found = engine(server, generator, top_p=0.9, top_k=50).sample(
        [[1, 2], [3]], 2, 5, ["1/a", "1/b"], [("\ndef", "\n#"), ()]
    )
    assert found == [[Sample([5, 6], [-0.5, -1.0], True)] * 2] * 2
    assert {path for path, _, _ in server.asked} == {"/v1/completions"}
    assert {key for _, key, _ in server.asked} == {f"Bearer {KEY}"}
    bodies = sorted((body for _, _, body in server.asked), key=lambda body: (body["prompt"], body["seed"]))
    assert [body["prompt"] for body in bodies] == [[1, 2], [1, 2], [3], [3]]
    assert [body.get("stop") for body in bodies] == [["\ndef", "\n#"]] * 2 + [None] * 2
    assert len({body["seed"] for body in bodies}) == 4
    for body in bodies:
        assert (body["model"], body["max_tokens"], body["logprobs"]) == ("m@1", 12, 1)
        assert (body["temperature"], body["top_p"], body["top_k"]) == (0.8, 0.9, 50)
        assert (body["min_p"], body["repetition_penalty"]) == (0.0, 1.0), (
            "not what the server takes by itself"
        )
        assert body["stream"] is True, "in one piece llama.cpp leaves out tokens before a stop text"


def test_greedy_asks_once_at_temperature_0(server: Server, generator: Path):
    server.replies = [(200, LLAMA_CPP, "length")]
    assert engine(server, generator).sample([[1]], 0, 5) == [[Sample([5, 6], [-0.5, -1.0], False)]]
    ((_, _, body),) = server.asked
    assert (body["temperature"], body["repetition_penalty"]) == (0.0, 1.0)
    assert "seed" not in body


def test_a_busy_server_is_asked_again(server: Server, generator: Path):
    server.replies = [(503, None, ""), (429, None, ""), (200, VLLM, "stop")]
    assert engine(server, generator).sample([[1]], 1, 5) == [[Sample([5, 6], [-0.5, -1.0], True)]]
    assert len(server.asked) == 3
    server.replies = [(500, None, "")]
    with pytest.raises(RunError, match="no completion, status 500") as caught:
        engine(server, generator).sample([[1]], 1, 5)
    assert caught.value.exit_code == 1
    assert len(server.asked) == 6
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("logprobs", [VLLM, LLAMA_CPP])
def test_an_answer_that_breaks_off_is_asked_for_again(server: Server, generator: Path, logprobs: dict):
    server.replies = [(200, logprobs, ""), (200, logprobs, "length")]
    assert engine(server, generator).sample([[1]], 1, 5) == [[Sample([5, 6], [-0.5, -1.0], False)]]
    server.replies = [(200, logprobs, "")]
    with pytest.raises(RunError, match="the answer breaks off"):
        engine(server, generator).sample([[1]], 1, 5)


def test_an_error_in_the_middle_of_an_answer_is_told():
    first = json.dumps({"choices": [{"text": "a", "logprobs": VLLM, "finish_reason": None}]})
    with pytest.raises(httpx.HTTPError, match="out of memory"):
        served.sample_of("http://h", [f"data: {first}", "", 'data: {"error": {"message": "out of memory"}}'])


def test_a_server_with_other_models_is_refused(server: Server, generator: Path):
    server.models = ["m@1"]
    engine(server, generator)
    server.models = ["m@2", "other"]
    with pytest.raises(UsageError, match=r"expected the model m@1, it serves m@2, other; serve"):
        engine(server, generator)


@pytest.mark.parametrize("logprobs", [None, {"tokens": ["a"], "token_logprobs": [-0.5]}, {"content": [{}]}])
def test_a_server_without_logprobs_or_token_ids_is_told_in_one_line(
    server: Server, generator: Path, logprobs: Any
):
    server.replies = [(200, logprobs, "stop")]
    with pytest.raises(UsageError, match="expected log-probabilities and token ids") as caught:
        engine(server, generator).sample([[1]], 1, 5)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_a_refused_request_is_told_without_the_key(server: Server, generator: Path):
    server.replies = [(401, None, "")]
    with pytest.raises(UsageError, match=r"no completion, status 401: .*no: Bearer \*\*\*") as caught:
        engine(server, generator).sample([[1]], 1, 5)
    assert len(server.asked) == 1
    assert KEY not in str(caught.value)
    server.blanks = 268  # the 300th letter of the answer is one of the key's
    with pytest.raises(UsageError) as caught:
        engine(server, generator).sample([[1]], 1, 5)
    assert KEY[:6] not in str(caught.value)


def test_keys_contain_the_models_name_and_not_the_servers_address():
    def key(url: str, model: str) -> str:
        sample = SampleConfig(engine="openai", base_url=url, served_model=model)
        return SAMPLE.ref(SampleSlice(seed=1, sample=sample, splits=("rl",), count=2, greedy=True)).key

    assert key("http://a/v1", "m@1") == key("http://b/v1", "m@1")
    assert key("http://a/v1", "m@1") != key("http://a/v1", "m@2")


@pytest.mark.parametrize(
    "given",
    [
        {"engine": "openai"},
        {"engine": "openai", "base_url": "http://h/v1"},
        {"served_model": "m", "base_url": "http://h/v1"},
        {"served_model": "m"},
        {"base_url": "http://h/v1"},
        {"engine": "openai", "served_model": "m", "base_url": "http://user:secret@h/v1"},
    ],
)
def test_a_server_needs_an_address_and_a_model(given: dict):
    with pytest.raises(ValidationError):
        SampleConfig(**given)
