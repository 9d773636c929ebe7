"""Tests of `Generator`: a local model, the engines, a server that takes token ids, and one that takes texts."""

import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from selftrain import Generator
from selftrain.errors import RunError, UsageError
from selftrain.generate import Sampled
from selftrain.models.logprobs import summed_logprobs
from selftrain.models.models import encode_prompt, load_generator, load_tokenizer
from selftrain.sampling import served

PROMPT = "def add(n):  # n + 7\n"


def test_a_local_model_gives_completions_with_their_log_probabilities(generator: Path):
    model = Generator.load(generator)
    found = model.sample(PROMPT, n=5, max_new_tokens=12, stop=())
    assert found == model.sample(PROMPT, n=5, max_new_tokens=12, stop=()), "the same seed"
    assert found != model.sample(PROMPT, n=5, max_new_tokens=12, stop=(), seed=1)
    assert len({one.text for one in found}) > 1
    tokenizer, plain = load_tokenizer(generator), load_generator(generator)
    head = encode_prompt(tokenizer, PROMPT)
    [drawn] = model.draw.__self__.engine.sample([head], 5, 0, [f"0/{PROMPT}"], [()])  # type: ignore[attr-defined]
    sums = summed_logprobs(plain, [head] * 5, [one.token_ids for one in drawn])
    for one, sample, total in zip(found, drawn, sums, strict=True):
        assert one.tokens == len(sample.token_ids)
        assert one.mean_logprob == pytest.approx(total / one.tokens, abs=1e-4)
        assert one.finish_reason == ("stop" if sample.ended else "length")


def test_prompts_are_sampled_together_as_each_by_itself(generator: Path):
    prompts = [(PROMPT, None, ()), ("def other(a, b):\n", "py", None), (PROMPT, "py", ["\n"])]
    model = Generator.load(generator)
    together = model.sample_many(prompts, n=3, max_new_tokens=12, seed=2)
    for (prompt, language, stop), found in zip(prompts, together, strict=True):
        alone = model.sample(prompt, n=3, max_new_tokens=12, seed=2, language=language, stop=stop)
        assert [(one.text, one.finish_reason) for one in found] == [
            (one.text, one.finish_reason) for one in alone
        ]
        assert [one.mean_logprob for one in found] == pytest.approx([one.mean_logprob for one in alone])
    with pytest.raises(UsageError, match="the prompt is empty"):
        model.sample_many([*prompts, (" ", None, None)], n=1)
    assert [model.together(n) for n in (1, 16, 1000)] == [128, 8, 1]
    assert Generator.load(generator, engine="ctranslate2").together(1) == 1, "seeds a batch, not a prompt"


def test_a_stop_text_ends_a_completion_and_those_of_the_language_are_the_default(
    generator: Path, monkeypatch: pytest.MonkeyPatch
):
    model = Generator.load(generator)
    texts = [one.text for one in model.sample(PROMPT, n=8, max_new_tokens=20, stop=())]
    letter = next(text[3] for text in texts if len(text) > 3)
    for one in model.sample(PROMPT, n=8, max_new_tokens=20, stop=[letter]):
        assert letter not in one.text
    asked = []
    monkeypatch.setattr(model, "draw", lambda problems, *_: asked.append(problems[0].stop_tokens) or [[]])
    model.sample(PROMPT, n=1, language="python")
    model.sample(PROMPT, n=1, language="hs")
    assert asked == [("\ndef", "\n#", "\nif", "\nclass"), ()]


def test_temperature_0_is_greedy_and_both_engines_agree_on_it(generator: Path):
    found = {
        engine: Generator.load(generator, engine=engine).sample(PROMPT, n=1, temperature=0, max_new_tokens=9)
        for engine in ("hf", "ctranslate2")
    }
    [one], [other] = found["hf"], found["ctranslate2"]
    assert one.text == other.text
    assert one.mean_logprob == pytest.approx(other.mean_logprob, abs=1e-4)


def test_what_cannot_be_sampled_is_said(generator: Path):
    model = Generator.load(generator)
    with pytest.raises(UsageError, match="half of a surrogate pair"):
        model.sample("def f():\n    '\ud800'\n", n=1)
    with pytest.raises(UsageError, match="the prompt is empty"):
        model.sample(" \n")
    with pytest.raises(UsageError, match="n=0: expected at least 1"):
        model.sample(PROMPT, n=0)
    with pytest.raises(UsageError, match="and 1 at temperature 0"):
        model.sample(PROMPT, n=2, temperature=0)
    with pytest.raises(UsageError, match=r"max_new_tokens=96; expected .* no more than 96 in all"):
        model.sample(PROMPT, n=1, max_new_tokens=96)
    with pytest.raises(UsageError, match="^top_p=2.0: Input should be less than or equal to 1$"):
        model.sample(PROMPT, n=1, top_p=2.0)
    with pytest.raises(UsageError, match="the prompt: expected a text, got None"):
        model.sample(None, n=1)  # type: ignore[arg-type]
    for n in (2.0, "2", None):
        with pytest.raises(UsageError, match="expected at least 1"):
            model.sample(PROMPT, n=n)  # type: ignore[arg-type]
    for language, said in (
        ("klingon", "unknown language 'klingon'"),
        (7, "the language: expected a text such as py"),
    ):
        with pytest.raises(UsageError, match=said):
            model.sample(PROMPT, n=1, language=language)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="the generator cannot be put on the device 'gpu': "):
        Generator.load(generator, device="gpu")
    with pytest.raises(UsageError, match="engine='vlm': expected 'hf' or 'ctranslate2'"):
        Generator.load(generator, engine="vlm")  # type: ignore[arg-type]
    for stop in ("end", ["end", ""], [7], 7, [b"end"]):
        with pytest.raises(UsageError, match="expected a list of texts, none of them empty"):
            model.sample(PROMPT, n=1, stop=stop)
    with pytest.raises(UsageError, match="expected a generator's folder"):
        Generator.load("nowhere")
    model.style = "chat"
    with pytest.raises(UsageError, match="say which, for example language='py'"):
        model.sample(PROMPT, n=1)


class Server(ThreadingHTTPServer):
    """Answers every request with the events `events(body)`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.events: Callable[[dict[str, Any]], list[dict[str, Any]]] = lambda body: []

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    """One request."""

    def do_POST(self) -> None:
        server: Any = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server.asked.append((self.path, body))
        events = server.events(body)
        text = "".join(f"data: {json.dumps({'choices': [one]})}\n\n" for one in events) + "data: [DONE]\n\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def do_GET(self) -> None:
        text = json.dumps({"data": [{"id": "m"}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A running server; tries follow each other at once."""
    monkeypatch.setattr(served, "WAITS", (0.0,))
    with Server() as made:
        thread = Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def part(text: str, logprobs: Any = None, reason: str | None = None) -> dict[str, Any]:
    """An event of `/completions`."""
    return {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": reason}


def test_a_server_that_takes_texts_is_asked_with_the_prompt_and_the_stop_texts(server: Server):
    server.events = lambda _: [
        part("  a", {"tokens": ["  a"], "token_logprobs": [-0.5]}),
        part("\nif", {"tokens": ["\nif"], "token_logprobs": [-1.5]}),
        part(" x", {"tokens": [" x"], "token_logprobs": [-9.0]}, "length"),
    ]
    model = Generator.load("m", base_url=server.url)
    found = model.sample(PROMPT, n=2, temperature=0.5, max_new_tokens=9, top_p=0.9, language="py", seed=3)
    assert found == [Sampled("  a", -0.5, 1, "stop")] * 2, "cut at \\nif, which this server does not stop at"
    assert {path for path, _ in server.asked} == {"/v1/completions"}
    bodies = [body for _, body in server.asked]
    assert len({body.pop("seed") for body in bodies}) == 2
    assert (
        bodies
        == [
            {
                "model": "m",
                "prompt": PROMPT,
                "max_tokens": 9,
                "temperature": 0.5,
                "top_p": 0.9,
                "logprobs": 1,
                "stream": True,
                "stop": ["\ndef", "\n#", "\nif", "\nclass"],
            }
        ]
        * 2
    )


def test_without_log_probabilities_a_completion_has_none(server: Server):
    server.events = lambda _: [part("  pass"), part("\n", None, "stop")]
    [one] = Generator.load("m", base_url=server.url).sample(PROMPT, n=1)
    assert one == Sampled("  pass\n", None, 0, "stop")


def test_a_chat_model_is_asked_a_question_and_its_program_is_taken(server: Server):
    answer = ["Here:\n```python\n", "def add(n):\n", "    return n + 7\n```"]
    server.events = lambda _: [
        {
            "index": 0,
            "delta": {"content": text},
            "logprobs": {"content": [{"token": text, "logprob": -1.0 - at}]},
            "finish_reason": "stop" if at == 2 else None,
        }
        for at, text in enumerate(answer)
    ]
    model = Generator.load("m", base_url=server.url, chat=True)
    [one] = model.sample("def add(n):\n", n=1, language="py")
    assert one.text.rstrip() == "    return n + 7"
    assert (one.mean_logprob, one.tokens) == (-2.0, 3), "of the whole answer"
    [(path, body)] = server.asked
    assert path == "/v1/chat/completions"
    assert body["logprobs"] is True
    assert "Complete this Python code" in body["messages"][0]["content"]
    assert "stop" not in body


def test_with_a_tokenizer_a_server_is_sent_token_ids(server: Server, generator: Path):
    tokenizer = load_tokenizer(generator)
    ids = tokenizer("  pass")["input_ids"]
    server.events = lambda _: [
        part("x", {"tokens": [f"token_id:{id}" for id in ids], "token_logprobs": [-1.0] * len(ids)}, "stop")
    ]
    model = Generator.load("m", base_url=server.url, tokenizer=generator)
    [one] = model.sample(PROMPT, n=1, max_new_tokens=9)
    assert one == Sampled("  pass", -1.0, len(ids), "stop")
    assert server.asked[0][1]["prompt"] == encode_prompt(tokenizer, PROMPT)


def test_a_server_without_the_model_or_with_a_broken_answer_is_said(server: Server):
    with pytest.raises(UsageError, match=rf"base_url {server.url}: expected the model other, it serves m"):
        Generator.load("other", base_url=server.url)
    for url in ("127.0.0.1:1/v1", "http://[::1", "http://", "http://h:port/v1"):
        with pytest.raises(UsageError, match="expected an address such as"):
            Generator.load("m", base_url=url)
    server.events = lambda _: [part("  pa")]
    with pytest.raises(RunError, match="the answer breaks off"):
        Generator.load("m", base_url=server.url).sample(PROMPT, n=1)
    for token in ({"token": "a"}, {"token": 5, "logprob": -1.0}):
        server.events = lambda _, token=token: [part("a", {"content": [token]}, "stop")]
        with pytest.raises(UsageError, match="expected a completion as OpenAI's protocol has it"):
            Generator.load("m", base_url=server.url).sample(PROMPT, n=1)
