"""The reranker over HTTP: requests and answers of each dialect, limits, batches, and replacement by a newer reranker."""

import json
import math
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("prometheus_client")
from fastapi.testclient import TestClient

from selftrain.errors import RunError, StoreError, UsageError
from selftrain.rerank.picker import Picker
from selftrain.rerank.reranker import Reranker
from selftrain.serve.app import application
from selftrain.serve.batcher import Batcher
from selftrain.serve.bodies import Rerank
from selftrain.serve.command import serve
from selftrain.serve.metrics import Metrics
from selftrain.serve.served import Problem, Ranked, Served, Source, Wanted
from selftrain.serve.service import Limits
from tests.command import wait_until

PROMPT = "def addx(n):  # n + 3\n"
TEXTS = ["    return n + 3\n", "    return n\n", "    pass\n"]
RERANKS = ("/rerank", "/v1/rerank", "/v2/rerank")


@pytest.fixture(scope="module")
def source(reranker: Path) -> Source:
    return Source(Wanted(str(reranker)))


@pytest.fixture(scope="module")
def client(source: Source) -> Iterator[TestClient]:
    with TestClient(application(source, Limits(documents=20, characters=500))) as client:
        yield client


@pytest.fixture(scope="module")
def scores(reranker: Path) -> list[float]:
    return Reranker.load(reranker).score(PROMPT, TEXTS)


def test_a_relevance_is_a_chance_where_the_reranker_alone_ranks_and_was_fitted(reranker: Path) -> None:
    fit = {"rm-1": {"scale": 2.0, "offset": -1.0}}
    for way, calibration, chance in (("rm-1", fit, True), ("rm-1+logprob", fit, False), ("rm-1", {}, False)):
        evaluated = {"logprob_weights": {"rm-1": 0.5}, "calibration": calibration}
        served = Served("run", Picker({}, Reranker.load(reranker), way, evaluated))
        assert served.calibrated is chance, (way, calibration)
        assert (served.scale, served.offset) == ((2.0, -1.0) if calibration else (1.0, 0.0))
    assert not Served("folder", Reranker.load(reranker)).calibrated


def sigmoid(score: float) -> float:
    return 1 / (1 + math.exp(-score))


def best_first(scores: Sequence[float]) -> list[int]:
    return sorted(range(len(scores)), key=lambda at: -scores[at])


@pytest.mark.parametrize("path", RERANKS)
def test_cohere_jina_and_vllm_get_the_order_of_the_reranker(
    client: TestClient, scores: list[float], path: str
):
    answer = client.post(path, json={"model": "any", "query": PROMPT, "documents": TEXTS, "top_n": 2}).json()
    order = best_first(scores)[:2]
    assert [row["index"] for row in answer["results"]] == order
    assert [row["relevance_score"] for row in answer["results"]] == pytest.approx(
        [sigmoid(scores[at]) for at in order], abs=1e-4
    )
    assert [row["document"] for row in answer["results"]] == [{"text": TEXTS[at]} for at in order]
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] > 0
    assert answer["meta"]["tokens"]["input_tokens"] == answer["usage"]["total_tokens"]


def test_documents_may_be_objects_and_need_not_come_back(client: TestClient, scores: list[float]):
    documents = [{"text": TEXTS[0], "id": 7}, TEXTS[1], {"text": TEXTS[2]}]
    body = {
        "query": {"text": PROMPT},
        "documents": documents,
        "return_documents": False,
        "use_activation": False,
    }
    results = client.post("/v2/rerank", json=body).json()["results"]
    assert [set(row) for row in results] == [{"index", "relevance_score"}] * 3
    assert [row["relevance_score"] for row in results] == pytest.approx(
        sorted(scores, reverse=True), abs=1e-4
    )


@pytest.mark.parametrize("field", ["documents", "texts"])
def test_a_field_that_is_null_is_one_that_is_not_there(client: TestClient, field: str):
    """As clients send the options that their caller has not set."""
    body = {"query": PROMPT, field: TEXTS}
    options = {name: None for name in Rerank.model_fields if name not in ("query", "documents", "texts")}
    answers = [client.post("/rerank", json=body | more).json() for more in ({}, options)]
    first, second = (answer["results"] if field == "documents" else answer for answer in answers)
    assert first == second


def test_texts_are_answered_as_text_embeddings_inference_does(client: TestClient, scores: list[float]):
    order = best_first(scores)
    ranks = client.post("/rerank", json={"query": PROMPT, "texts": TEXTS}).json()
    assert ranks == [{"index": at, "score": pytest.approx(sigmoid(scores[at]), abs=1e-4)} for at in order]
    ranks = client.post(
        "/rerank", json={"query": PROMPT, "texts": TEXTS, "raw_scores": True, "return_text": True}
    ).json()
    assert ranks == [
        {"index": at, "score": pytest.approx(scores[at], abs=1e-4), "text": TEXTS[at]} for at in order
    ]


@pytest.mark.parametrize(
    "body",
    [
        {"text_1": PROMPT, "text_2": TEXTS},
        {"queries": [PROMPT] * 3, "documents": TEXTS},
        {"queries": [PROMPT], "items": TEXTS},
        {"data_1": PROMPT, "data_2": TEXTS},
    ],
)
def test_scores_are_those_of_the_model_as_vllm_gives_them(client: TestClient, scores: list[float], body: Any):
    answer = client.post("/score", json=body).json()
    assert answer["data"] == [
        {"index": at, "object": "score", "score": pytest.approx(score, abs=1e-4)}
        for at, score in enumerate(scores)
    ]
    activated = client.post("/v1/score", json=body | {"use_activation": True}).json()["data"]
    assert [row["score"] for row in activated] == pytest.approx(list(map(sigmoid, scores)), abs=1e-4)


def test_classes_are_scores_of_texts_with_the_separator_or_of_conversations(
    client: TestClient, scores: list[float]
):
    inputs = [f"{PROMPT}<sep>{text}<end>" for text in TEXTS]
    data = client.post("/classify", json={"input": inputs}).json()["data"]
    assert [row["probs"] for row in data] == [[pytest.approx(score, abs=1e-4)] for score in scores]
    assert {(row["label"], row["num_classes"]) for row in data} == {("LABEL_0", 1)}
    messages = [{"role": "user", "content": PROMPT}, {"role": "assistant", "content": TEXTS[1]}]
    [row] = client.post("/classify", json={"messages": messages}).json()["data"]
    assert row["probs"] == [pytest.approx(scores[1], abs=1e-4)]
    refused = client.post("/classify", json={"input": "text"})
    assert refused.status_code == 422
    assert "<sep>" in refused.json()["detail"]


def test_rewards_are_given_for_prompts_with_completions_as_openrlhf_asks(
    client: TestClient, scores: list[float]
):
    query = [f"{PROMPT}{TEXTS[0]}<end>", f"{PROMPT}<sep>{TEXTS[1]}<end><pad><pad>"]
    body = {"query": query, "prompts": [PROMPT] * 2, "labels": [None, {"a": 1}]}
    assert client.post("/get_reward", json=body).json() == {
        "rewards": pytest.approx(scores[:2], abs=1e-4),
        "scores": pytest.approx(list(map(sigmoid, scores[:2])), abs=1e-4),
        "extra_logs": {},
    }
    by_separator = client.post("/get_reward", json={"query": query[1:]}).json()
    assert by_separator["rewards"] == [pytest.approx(scores[1], abs=1e-4)]
    other = client.post("/get_reward", json=body | {"prompts": [PROMPT, "another"]})
    assert other.status_code == 422
    assert "query 1: expected its prompt" in other.json()["detail"]
    empty = client.post("/get_reward", json=body | {"prompts": [PROMPT, ""]})
    assert (empty.status_code, "query 1: its prompt is empty" in empty.json()["detail"]) == (422, True)


def test_a_candidate_that_cannot_be_scored_comes_last_and_the_answer_says_why(client: TestClient):
    answer = client.post("/rerank", json={"query": PROMPT, "documents": [" \n", *TEXTS]}).json()
    assert answer["results"][-1] | {"document": None} == {
        "index": 0,
        "relevance_score": 0.0,
        "document": None,
    }
    assert "candidate 0 cannot be scored" in answer["meta"]["warnings"][0]
    rewards = client.post("/score", json={"text_1": PROMPT, "text_2": ["", *TEXTS]}).json()["data"]
    assert rewards[0]["score"] == min(row["score"] for row in rewards)


def test_a_candidate_that_is_no_unicode_text_comes_back_as_it_was(client: TestClient):
    """Half of a surrogate pair, as JSON can have it and UTF-8 cannot."""
    half = "return '\ud800'"
    for field, wanted in (("documents", {}), ("texts", {"return_text": True})):
        content = json.dumps({"query": PROMPT, field: [half, TEXTS[0]], **wanted})
        answer = client.post("/rerank", content=content, headers={"Content-Type": "application/json"})
        rows = answer.json()["results"] if field == "documents" else answer.json()
        assert [row["index"] for row in rows] == [1, 0]
        assert rows[1].get("text", rows[1].get("document")) in (half, {"text": half})


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"query": PROMPT}, 422, "expected either documents or texts"),
        ({"query": PROMPT, "documents": []}, 422, "expected at least one candidate, got none"),
        ({"query": " ", "documents": TEXTS}, 422, "the prompt is empty"),
        ({"query": PROMPT, "documents": TEXTS * 7}, 413, "candidates: got 21, allowed are at most 20"),
        ({"query": PROMPT, "documents": ["x" * 501]}, 413, "got 501, allowed are at most 500"),
        ({"query": PROMPT + "1" * 200, "documents": TEXTS}, 422, "no candidate can be ranked"),
        ({"query": PROMPT, "documents": TEXTS, "top_n": -1}, 422, "top_n"),
        ({"query": PROMPT, "documents": "text"}, 422, "documents"),
        ([], 422, "JSON object"),
    ],
)
def test_what_is_wrong_is_told_to_each_client_in_its_form(
    client: TestClient, body: Any, status: int, said: str
):
    answer = client.post("/rerank", json=body)
    assert answer.status_code == status
    told = answer.json()
    assert said in told["detail"]
    assert told["message"] == told["error"]["message"] == told["detail"]
    assert told["error"]["code"] == status
    if isinstance(body, dict) and isinstance(body.get("documents"), list):
        texts = {("texts" if name == "documents" else name): value for name, value in body.items()}
        answer = client.post("/rerank", json=texts)
        assert answer.status_code == status
        assert said in answer.json()["error"]
        assert answer.json()["error_type"] == "Validation"


def test_candidates_are_cut_only_where_that_is_asked_for(client: TestClient, source: Source, reranker: Path):
    long = (TEXTS[0] * 12).rstrip()
    ranker = Reranker.load(reranker)
    most = source.served.context
    assert most == 96 < source.served.lengths(PROMPT, [long])[0]
    for asked in ({"truncate_prompt_tokens": -1}, {"max_tokens_per_doc": 20}, {"truncate_prompt_tokens": 40}):
        answer = client.post("/rerank", json={"query": PROMPT, "documents": [long], **asked}).json()
        assert "was cut" in answer["meta"]["warnings"][0]
        assert answer["usage"]["total_tokens"] <= most
    kept = source.served.shortened(PROMPT, long, 40, keep_end=False)
    assert kept
    assert long.startswith(kept)
    assert source.served.lengths(PROMPT, [kept]) == [40]
    assert answer["results"][0]["relevance_score"] == pytest.approx(
        sigmoid(ranker.score(PROMPT, [kept])[0]), abs=1e-4
    )
    cut = {
        "query": PROMPT,
        "texts": [long],
        "truncate": True,
        "truncation_direction": "Left",
        "raw_scores": True,
    }
    [rank] = client.post("/rerank", json=cut).json()
    end = source.served.shortened(PROMPT, long, most, keep_end=True)
    assert end
    assert long.endswith(end)
    assert rank["score"] == pytest.approx(ranker.score(PROMPT, [end])[0], abs=1e-4)


class Slow(Served):
    """Waits before it ranks until it may, and keeps what it was asked. `begun`: it was asked once."""

    def __init__(self, served: Served) -> None:
        vars(self).update(vars(served))
        self.may, self.begun, self.asked = threading.Event(), threading.Event(), []

    def rank(self, problems: Sequence[Problem]) -> list[Ranked]:
        self.begun.set()
        self.may.wait(30)
        self.asked.append(problems)
        return super().rank(problems)


@pytest.fixture
def slow(reranker: Path) -> Source:
    source = Source(Wanted(str(reranker)))
    source.served = Slow(source.served)
    return source


def send(
    client: TestClient, bodies: Sequence[Any], path: str = "/rerank"
) -> tuple[list[threading.Thread], list[Any]]:
    """The bodies, each sent by a thread of its own, and their answers when the threads have ended."""
    answers: list[Any] = [None] * len(bodies)

    def one(at: int) -> None:
        answers[at] = client.post(path, json=bodies[at])

    threads = [threading.Thread(target=one, args=(at,)) for at in range(len(bodies))]
    for thread in threads:
        thread.start()
    return threads, answers


def waiting(client: TestClient) -> float:
    """Candidates that wait, by /metrics."""
    text = client.get("/metrics").text
    return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith("rerank_queue "))


def until_waiting(client: TestClient, count: int) -> None:
    while waiting(client) != count:
        threading.Event().wait(0.01)


def test_healthz_tells_a_scoring_thread_that_is_stuck_or_has_ended(slow: Source):
    with TestClient(application(slow, Limits(stuck=0.05))) as client:
        assert client.get("/healthz").status_code == 200
        waiting, _ = send(client, [{"query": PROMPT, "documents": TEXTS}])
        assert isinstance(slow.served, Slow)
        assert slow.served.begun.wait(30)
        time.sleep(0.1)
        for path in ("/healthz", "/health"):
            answer = client.get(path)
            assert answer.status_code == 503
            assert answer.json()["status"] == "the scoring thread has been busy for more than 0.05 s"
        slow.served.may.set()
        for thread in waiting:
            thread.join()
        # The answers are sent before the thread is done with them.
        wait_until(lambda: client.get("/healthz").json()["status"] == "ok", "a thread that is idle again")
    batcher = Batcher(9, Metrics())
    assert not batcher.fault(0.05)
    batcher.close()
    assert batcher.fault(0.05) == "the scoring thread has ended"


class Breaking(Slow):
    """Ends its thread when it may."""

    def rank(self, problems: Sequence[Problem]) -> list[Ranked]:
        super().rank(problems)
        raise SystemExit("no memory")


BROKEN = "the scoring thread has ended: SystemExit no memory"


def test_when_the_scoring_thread_has_ended_each_request_is_told_at_once(slow: Source):
    """What is being scored, what waits, and what comes later."""
    slow.served = Breaking(slow.served)
    app = application(slow, Limits())
    with TestClient(app) as client:
        body = {"query": PROMPT, "documents": TEXTS}
        first, one = send(client, [body])
        assert slow.served.begun.wait(30)
        more, others = send(client, [body, {"query": PROMPT, "texts": TEXTS}])
        until_waiting(client, 6)
        stopped = threading.Event()
        app.state.stop = stopped.set
        slow.served.may.set()
        for thread in (*first, *more):
            thread.join(30)
        assert [(answer.status_code, answer.json()["error"]) for answer in others[1:]] == [(503, BROKEN)]
        for answer in (one[0], others[0], client.post("/rerank", json=body)):
            assert (answer.status_code, answer.json()["detail"]) == (503, BROKEN)
        assert client.get("/healthz").json()["status"] == BROKEN
        assert waiting(client) == 0
        assert stopped.wait(30)


def test_a_server_whose_scoring_thread_has_ended_ends(slow: Source, monkeypatch: pytest.MonkeyPatch):
    """So that whoever started it can start another."""
    slow.served = Breaking(slow.served)
    slow.served.may.set()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    answers: list[httpx.Response] = []

    def ask() -> None:
        transport = httpx.HTTPTransport(retries=9)
        with httpx.Client(transport=transport, timeout=30) as client:
            body = {"query": PROMPT, "documents": TEXTS}
            answers.append(client.post(f"http://127.0.0.1:{port}/rerank", json=body))

    asking = threading.Thread(target=ask)
    asking.start()
    monkeypatch.setattr("sys.setswitchinterval", lambda _: None)
    with pytest.raises(RunError, match=BROKEN):
        serve(slow, Limits(), "127.0.0.1", port, 0)
    asking.join()
    assert [answer.status_code for answer in answers] == [503]


def test_requests_that_wait_are_scored_together_and_a_full_queue_is_told(slow: Source, scores: list[float]):
    with TestClient(application(slow, Limits(queue=9))) as client:
        body = {"query": PROMPT, "documents": TEXTS}
        first, _ = send(client, [body])
        assert isinstance(slow.served, Slow)
        assert slow.served.begun.wait(30)
        more, answers = send(client, [body, body | {"query": "def addxx(n):\n"}, body])
        until_waiting(client, 9)
        full = client.post("/rerank", json=body)
        assert full.status_code == 503
        assert int(full.headers["Retry-After"]) > 0
        assert full.json()["detail"] == "the queue is full: 9 candidates wait, allowed are 9"
        assert (
            client.post("/rerank", json={"query": PROMPT, "texts": TEXTS}).json()["error_type"]
            == "Overloaded"
        )
        slow.served.may.set()
        for thread in (*first, *more):
            thread.join()
        assert [len(batch) for batch in slow.served.asked] == [1, 2], (
            "the prompt of two requests is read once"
        )
        for answer in (answers[0], answers[2]):
            assert [row["index"] for row in answer.json()["results"]] == best_first(scores)


def test_two_threads_score_at_once_and_the_end_of_one_ends_the_other(slow: Source):
    """The second request is answered while the first one is being scored. If one thread breaks, each request is told, both end."""
    right, first = slow.served.rank, threading.Event()

    def rank(problems: Sequence[Problem]) -> list[Ranked]:
        if problems[0].prompt == "def bad(n):\n":
            raise SystemExit("no memory")
        if problems[0].prompt == "def held(n):\n":
            first.set()
            return right(problems)
        return super(Slow, slow.served).rank(problems)

    slow.served.rank = rank
    app = application(slow, Limits(threads=2))
    with TestClient(app) as client:
        held, answers = send(client, [{"query": "def held(n):\n", "documents": TEXTS}])
        assert first.wait(30)
        for _ in range(3):
            assert client.post("/rerank", json={"query": PROMPT, "documents": TEXTS}).status_code == 200
        assert client.get("/healthz").status_code == 200
        stopped = threading.Event()
        app.state.stop = stopped.set
        answer = client.post("/rerank", json={"query": "def bad(n):\n", "documents": TEXTS})
        assert (answer.status_code, answer.json()["detail"]) == (503, BROKEN)
        assert client.post("/rerank", json={"query": PROMPT, "documents": TEXTS}).status_code == 503
        assert stopped.wait(30)
        slow.served.may.set()
        for thread in held:
            thread.join()
        assert answers[0].status_code == 200, "what was being scored is answered"


def test_two_threads_give_the_scores_of_one(source: Source, reranker: Path):
    ranker = Reranker.load(reranker)
    prompts = [f"def add{'x' * (at % 5)}(n):\n" for at in range(24)]
    with TestClient(application(source, Limits(threads=2))) as client:
        bodies = [{"query": prompt, "documents": TEXTS, "use_activation": False} for prompt in prompts]
        threads, answers = send(client, bodies)
        for thread in threads:
            thread.join()
    for prompt, answer in zip(prompts, answers, strict=True):
        found = {row["index"]: row["relevance_score"] for row in answer.json()["results"]}
        assert [found[at] for at in range(len(TEXTS))] == pytest.approx(ranker.score(prompt, TEXTS), abs=1e-4)


def test_one_requests_fault_is_not_anothers(slow: Source):
    right = slow.served.rank

    def rank(problems: Sequence[Problem]) -> list[Ranked]:
        found = right(problems)
        if any("bad" in problem.prompt for problem in problems):
            raise UsageError("not this one")
        return found

    slow.served.rank = rank
    with TestClient(application(slow, Limits())) as client:
        bodies = [{"query": prompt, "documents": TEXTS} for prompt in (PROMPT, "bad", "good")]
        threads, answers = send(client, bodies)
        slow.served.may.set()
        for thread in threads:
            thread.join()
        assert [answer.status_code for answer in answers] == [200, 422, 200]
        assert answers[1].json()["detail"] == "not this one"


def test_a_candidate_is_counted_and_cut_in_the_form_that_is_scored(client: TestClient, reranker: Path):
    prompt = "def addx(n):\n"
    prose = "So I add three, and this is what comes out of it. " * 4
    answer = f"{prose}\n```python\n{prompt}{TEXTS[0]}```\n"
    body = {"query": prompt, "documents": [answer], "truncate_prompt_tokens": -1, "use_activation": False}
    found = client.post("/rerank", json=body).json()
    assert "warnings" not in found["meta"], "without its prose it is not too long"
    [score] = Reranker.load(reranker).score(prompt, TEXTS[:1])
    assert found["results"][0]["relevance_score"] == pytest.approx(score, abs=1e-4)
    plain = client.post("/rerank", json=body | {"documents": [TEXTS[0].rstrip()]}).json()
    assert found["usage"] == plain["usage"]


def test_pairs_keep_their_places_whatever_their_prompts(client: TestClient, reranker: Path):
    ranker, other = Reranker.load(reranker), "def addxx(n):\n"
    prompts = [PROMPT, other, PROMPT, other]
    texts = [TEXTS[0], TEXTS[1], TEXTS[2], ""]
    rows = client.post("/score", json={"text_1": prompts, "text_2": texts}).json()["data"]
    expected = [ranker.score(prompt, [text])[0] for prompt, text in zip(prompts, texts, strict=True)]
    assert [row["score"] for row in rows[:3]] == pytest.approx(expected[:3], abs=1e-4)
    assert rows[3]["score"] <= min(expected[:3])


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"query": PROMPT, "documents": TEXTS, "language": "klingon"}, 422, "klingon"),
        (
            {"query": "x" * 200_000, "documents": ["y"] * 200},
            413,
            "got 40000200, allowed are at most 32000000",
        ),
    ],
)
def test_hostile_requests_are_refused_before_they_cost_anything(
    source: Source, body: Any, status: int, said: str
):
    with TestClient(application(source, Limits())) as client:
        answer = client.post("/rerank", json=body)
        assert answer.status_code == status
        assert said in answer.json()["detail"]


def test_special_tokens_at_the_end_of_a_completion_are_left_out_in_a_time_that_grows_with_their_number(
    source: Source,
):
    assert source.served.without_end("x<end>y<end><pad>") == "x<end>y"
    assert source.served.without_end("x" + "<pad>" * 200_000) == "x"


def test_a_request_is_scored_by_the_reranker_that_has_read_it(slow: Source, reranker: Path):
    """So its name, its figures and its scores belong together."""
    with TestClient(application(slow, Limits())) as client:
        old, body = slow.served, {"query": PROMPT, "documents": TEXTS}
        assert isinstance(old, Slow)
        threads, answers = send(client, [body])
        assert old.begun.wait(30)
        more, later = send(client, [body])
        until_waiting(client, 3)
        slow.served = Served("new", Reranker.load(reranker))
        last, newest = send(client, [body])
        until_waiting(client, 6)
        old.may.set()
        for thread in (*threads, *more, *last):
            thread.join()
        names = [answer.json()["model"] for answer in (*answers, *later, *newest)]
        assert names == [old.name, old.name, "new"]
        assert [len(batch) for batch in old.asked] == [1, 1]


def test_a_token_is_asked_for_but_not_for_the_health(source: Source):
    with TestClient(application(source, Limits(), token="secret")) as client:
        body = {"query": PROMPT, "documents": TEXTS}
        refused = client.post("/rerank", json=body)
        assert refused.status_code == 401
        assert "Bearer" in refused.json()["message"]
        assert (
            client.post("/rerank", json=body, headers={"Authorization": "Bearer secret"}).status_code == 200
        )
        for given in (
            "bearer secret",
            "BEARER  secret",
        ):  # HTTP ignores the case of the scheme; older Cohere clients write it so
            assert client.post("/rerank", json=body, headers={"Authorization": given}).status_code == 200
        for given in ("secret", "Basic secret", "Bearer", "Bearer secret x", "Bearer \xff".encode("latin-1")):
            assert client.post("/rerank", json=body, headers={"Authorization": given}).status_code == 401, (
                given
            )
        assert client.get("/healthz").json()["status"] == "ok"
        assert client.get("/metrics").status_code == 401
        described = client.get("/openapi.json", headers={"Authorization": "Bearer secret"}).json()
    assert described["components"]["securitySchemes"] == {"token": {"type": "http", "scheme": "bearer"}}
    for path, methods in described["paths"].items():
        [of] = methods.values()
        assert of["security"] == ([] if path == "/healthz" else [{"token": []}]), path


def loading(monkeypatch: pytest.MonkeyPatch, identities: str, found: Sequence[Served | Exception]) -> Source:
    """A source that finds `identities`, one a look, and loads what `found` has, one after the other."""
    identity, loads = iter(identities), iter(found)

    def load(_: Wanted) -> Served:
        one = next(loads)
        if isinstance(one, Exception):
            raise one
        return one

    monkeypatch.setattr(Wanted, "identity", lambda _: next(identity))
    monkeypatch.setattr(Wanted, "load", load)
    return Source(Wanted("champion"))


def test_a_newer_reranker_takes_the_place_and_a_broken_one_does_not(reranker: Path, monkeypatch):
    old, new = Served("old", Reranker.load(reranker)), Served("new", Reranker.load(reranker))
    source = loading(monkeypatch, "11233", [old, new, UsageError("broken")])
    assert source.served is old
    assert not source.renew(always=False)
    assert source.renew(always=False)
    assert source.served is new
    with pytest.raises(UsageError, match="broken"):
        source.renew(always=False)
    assert source.served is new
    assert not source.renew(always=False), "what is wrong is not tried again"


def test_what_could_not_be_fetched_is_tried_again(reranker: Path, monkeypatch):
    old, new = Served("old", Reranker.load(reranker)), Served("new", Reranker.load(reranker))
    source = loading(monkeypatch, "122", [old, StoreError("no network"), new])
    with pytest.raises(StoreError):
        source.renew(always=False)
    assert source.renew(always=False)
    assert source.served is new


def test_whatever_stops_a_reload_the_next_look_comes(source: Source, monkeypatch):
    looks = 0

    def renew(always: bool) -> bool:
        nonlocal looks
        looks += 1
        raise OSError("no file")

    monkeypatch.setattr(source, "renew", renew)
    with TestClient(application(source, Limits(), poll_seconds=0.01)) as client:
        while looks < 3:
            threading.Event().wait(0.01)
        failed = 'rerank_reloads_total{outcome="failed"}'
        assert failed in client.get("/metrics").text


def test_a_method_that_a_route_does_not_have_is_told_with_those_that_it_has(client: TestClient):
    for path in (*RERANKS, "/score", "/v1/score", "/classify", "/get_reward"):
        for method in ("GET", "HEAD", "PUT", "OPTIONS"):
            answer = client.request(method, path)
            assert (answer.status_code, answer.headers.get("Allow")) == (405, "POST"), (method, path)
    for path in ("/", "/healthz", "/health", "/metrics"):
        answer = client.post(path)
        assert (answer.status_code, answer.headers.get("Allow")) == (405, "GET"), path
        assert client.head(path).status_code == 200, path


def test_the_example_of_each_route_is_answered(client: TestClient):
    described = client.get("/openapi.json").json()
    posts = {path: of["post"] for path, of in described["paths"].items() if "post" in of}
    assert len(posts) == 7
    for path, of in posts.items():
        name = of["requestBody"]["content"]["application/json"]["schema"]["$ref"].split("/")[-1]
        [example] = described["components"]["schemas"][name]["examples"]
        assert client.post(path, json=example).status_code == 200, path


def test_the_types_of_the_answers_to_metrics_are_described(client: TestClient):
    answers = client.get("/openapi.json").json()["paths"]["/metrics"]["get"]["responses"]
    assert {status: list(of["content"]) for status, of in answers.items()} == {
        "200": ["text/plain"],
        "401": ["application/json"],
    }


def test_both_forms_of_a_refusal_are_described(client: TestClient):
    described = client.get("/openapi.json").json()
    forms = [
        of["content"]["application/json"]["schema"]["anyOf"]
        for path in RERANKS
        for status, of in described["paths"][path]["post"]["responses"].items()
        if status in ("413", "422", "503")
    ]
    names = ("Refused", "TeiRefused")
    assert forms == [[{"$ref": f"#/components/schemas/{name}"} for name in names]] * 9
    refused = client.post("/rerank", json={"texts": ["a"]}).json()
    assert set(refused) == set(described["components"]["schemas"]["TeiRefused"]["required"])


def test_the_page_the_routes_and_the_figures_are_there(client: TestClient):
    assert "selftrain serve" in client.get("/").text
    paths = client.get("/openapi.json").json()["paths"]
    assert {*RERANKS, "/score", "/v1/score", "/classify", "/get_reward", "/healthz", "/metrics"} == set(paths)
    text = client.get("/metrics").text
    assert 'rerank_request_seconds_count{route="/rerank",status="200"}' in text
    assert client.get("/nothing").status_code == 404
