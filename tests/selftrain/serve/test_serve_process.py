"""`selftrain serve` as a process: signals, clients that hang up, and the command of the documents."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.command import ROOT, alive, children, wait_until

pytestmark = pytest.mark.slow
PROMPT = "def addx(n):  # n + 3\n"


class Server:
    """A running server."""

    def __init__(self, port: int, process: subprocess.Popen[str]) -> None:
        self.port, self.process, self.url = port, process, f"http://127.0.0.1:{port}"

    def rerank(self, documents: list[str]) -> httpx.Response:
        return httpx.post(self.url + "/rerank", json={"query": PROMPT, "documents": documents}, timeout=120)

    def metric(self, name: str) -> float:
        lines = httpx.get(self.url + "/metrics", timeout=60).text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    def until(self, name: str, value: float) -> None:
        deadline = time.monotonic() + 120
        while self.metric(name) != value:
            assert time.monotonic() < deadline, f"{name} is {self.metric(name)}"
            time.sleep(0.05)


@contextmanager
def serving(reranker: Path, *options: str, **variables: str) -> Iterator[Server]:
    """A server of its own on a free port, with these command-line options and environment variables."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "flows.cli",
            "serve",
            str(reranker),
            "--port",
            str(port),
            "--poll",
            "0",
            *options,
        ],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | variables,
        stderr=subprocess.PIPE,
        text=True,
    )
    server, deadline = Server(port, process), time.monotonic() + 300
    try:
        while True:
            try:
                if httpx.get(server.url + "/healthz").status_code == 200:
                    break
            except httpx.TransportError:
                assert process.poll() is None, process.stderr and process.stderr.read()
                assert time.monotonic() < deadline
                time.sleep(0.1)
        yield server
    finally:
        process.terminate()
        process.communicate(timeout=60)


@pytest.fixture(scope="module")
def server(reranker: Path) -> Iterator[Server]:
    with serving(reranker) as server:
        yield server


def many(start: int, count: int = 400) -> list[str]:
    """Different candidates, which take a while to score."""
    return [f"    return n + {number}\n" for number in range(start, start + count)]


def in_threads(server: Server, requests: int) -> tuple[list[threading.Thread], list[Any]]:
    """Requests under way, and their statuses when the threads have ended."""
    statuses: list[Any] = [None] * requests

    def one(at: int) -> None:
        statuses[at] = server.rerank(many(1000 * at)).status_code

    threads = [threading.Thread(target=one, args=(at,)) for at in range(requests)]
    for thread in threads:
        thread.start()
    return threads, statuses


def test_the_command_of_the_documents_ranks(server: Server):
    [line] = re.findall(
        r"(?m)^    (curl http://127.0.0.1:8081/rerank .*)$", (ROOT / "docs" / "serve.md").read_text()
    )
    words = shlex.split(line)
    body = json.loads(words[words.index("-d") + 1])
    found = httpx.post(server.url + "/rerank", json=body, timeout=60).json()["results"]
    assert sorted(row["index"] for row in found) == [0, 1]


def test_sighup_loads_again_and_no_request_is_lost(server: Server):
    threads, statuses = in_threads(server, 4)
    server.process.send_signal(signal.SIGHUP)
    for thread in threads:
        thread.join()
    server.until('rerank_reloads_total{outcome="loaded"}', 1)
    assert statuses == [200] * 4
    assert server.rerank(["    return n\n"]).status_code == 200


def test_a_client_that_hangs_up_is_not_waited_for(server: Server):
    before = server.metric("rerank_candidates_total")
    threads, _ = in_threads(server, 2)
    body = json.dumps({"query": PROMPT, "documents": many(10**6)}).encode()
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        head = f"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        client.sendall(head.encode() + body)
    for thread in threads:
        thread.join()
    server.until("rerank_cancelled_total", 1)
    server.until("rerank_queue", 0)
    assert server.metric("rerank_candidates_total") - before in (800, 1200)


def test_sigterm_answers_what_was_accepted_and_ends(reranker: Path):
    with serving(reranker) as server:
        threads, statuses = in_threads(server, 4)
        while server.metric("rerank_queue") == 0 and any(thread.is_alive() for thread in threads):
            pass
        with socket.create_connection(("127.0.0.1", server.port)) as slow:  # it never sends its body
            slow.sendall(b"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
            server.process.send_signal(signal.SIGTERM)
            for thread in threads:
                thread.join()
            answered = time.monotonic()
            assert statuses == [200] * 4
            assert server.process.wait(60) in (0, -signal.SIGTERM)
            assert time.monotonic() - answered < 15, "a slow client holds up no server that ends"


@pytest.fixture
def under_nohup() -> Iterator[None]:
    """SIGHUP is ignored by what the test starts."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("under_nohup")
def test_several_workers_serve_as_one(reranker: Path):
    with serving(reranker) as server:
        expected = server.rerank(many(0)).json()["results"]
    with serving(reranker, "--workers", "2") as server:
        threads, statuses = in_threads(server, 8)
        server.process.send_signal(signal.SIGHUP)
        for thread in threads:
            thread.join()
        assert statuses == [200] * 8
        server.until('rerank_reloads_total{outcome="loaded"}', 2)
        # Each worker answers for both.
        for _ in range(8):
            assert server.metric("rerank_candidates_total") == 8 * 400
        found = server.rerank(many(0)).json()["results"]
        assert [row["index"] for row in found] == [row["index"] for row in expected]
        assert [row["relevance_score"] for row in found] == pytest.approx(
            [row["relevance_score"] for row in expected], abs=1e-5
        )
        workers = children(server.process.pid)
        threads, statuses = in_threads(server, 4)
        while server.metric("rerank_queue") == 0 and any(thread.is_alive() for thread in threads):
            pass
        server.process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        assert statuses == [200] * 4
        assert server.process.wait(60) == 0
        assert len(workers) == 2
        assert not any(map(alive, workers))
        _, said = server.process.communicate()
        assert [line for line in said.splitlines() if "arn" in line] == []


@pytest.mark.parametrize("who", ["worker", "parent"])
def test_one_of_several_processes_that_is_killed_ends_all(reranker: Path, who: str):
    with serving(reranker, "--workers", "2") as server:
        workers = children(server.process.pid)
        os.kill(int(workers[0]) if who == "worker" else server.process.pid, signal.SIGKILL)
        _, said = server.process.communicate(timeout=60)
        assert server.process.returncode == (1 if who == "worker" else -signal.SIGKILL)
        if who == "worker":
            assert said.splitlines()[-1] == (
                "selftrain: a serving process was killed by signal 9, so all have ended; what it said stands above"
            )
        wait_until(lambda: not any(map(alive, workers)), "the workers' end")
