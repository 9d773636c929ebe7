"""Benchmark: candidates per second of `selftrain serve` at 16 clients against `Reranker.score_many`, then latency and memory.

Both score the same problems with 16 candidates each, the demo's model and one of 28 M parameters on the bank's prompts: on one core
each, the clients on others, with what a user has who sets nothing, and with as many workers as cores. They take turns, so that what else the machine does hits both
alike; the best turn of each counts. Clients send the next request when they have the answer, so no more than 256 candidates wait:
`score_many` with windows of 256 says what that alone costs. Each turn sends prompts that the server has not seen.
`python -m tests.bench.serve 600`: the load of ten minutes, on the demo's model.
"""

import asyncio
import json
import random
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import torch

from selftrain.config import BankConfig
from selftrain.models.models import train_tokenizer
from selftrain.problems.read import read_problems
from selftrain.rerank.reranker import Reranker
from tests.bench.scoring import CANDIDATES, Problems, _model
from tests.command import children
from tests.selftrain.serve.test_serve_process import Server, serving

CLIENTS, GOAL = 16, 0.95
LOAD_SECONDS = 60.0


def main(seconds: float = LOAD_SECONDS) -> None:
    """Measure and print."""
    torch.manual_seed(0)
    sizes = {"sft": 400, "rl": 1, "validation": 1, "test": 1}
    bank = [
        p for p in read_problems(BankConfig(sizes=sizes, families=["list"], lengths=[1, 2])) if p.response
    ]
    tokenizer = train_tokenizer([text for p in bank for text in (p.prompt, p.response or "")], 1024)
    tiny = _model(tokenizer, hidden_size=128, layers=3, heads=4, key_value_heads=4)
    larger = _model(tokenizer, hidden_size=384, layers=16, heads=6, key_value_heads=2)
    rng = random.Random(0)
    answers = {
        language: [p.response or "" for p in bank if p.language == language] for language in ("py", "sh")
    }
    problems = [
        (p.prompt, rng.sample(answers[p.language], CANDIDATES)) for p in bank if p.language in answers
    ][:160]
    with saved(larger, tokenizer) as folder:
        compare_all(folder, problems[: 3 * CLIENTS], "28 M", turns=3)
    with saved(tiny, tokenizer) as folder:
        compare_all(folder, problems, "demo", turns=6)
        for workers in (1, torch.get_num_threads()):
            with serving(folder, "--workers", str(workers)) as server:
                long_load(server, problems, workers, seconds)


def long_load(server: Server, problems: Problems, workers: int, seconds: float) -> None:
    """Print what the load of `seconds` takes."""
    before = memory(server)
    found = sorted(asyncio.run(load(server.url, repeated(problems), seconds)))
    p50, p99 = (1000 * found[int(share * (len(found) - 1))] for share in (0.5, 0.99))
    print(
        f"{seconds:.0f} s of {CLIENTS} clients, {workers} workers: {len(found)} requests, {CANDIDATES * len(found) / seconds:.0f} "
        f"candidates/s, p50 {p50:.0f} ms, p99 {p99:.0f} ms; memory {before:.0f} MiB at the start, {memory(server):.0f} MiB at the end",
        flush=True,
    )


def memory(server: Server) -> float:
    """MiB of the server's processes; pages that they share count once."""
    pids = [server.process.pid, *children(server.process.pid)]
    rollups = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in pids]
    return sum(int(re.findall(r"(?m)^Pss: +(\d+) kB", text)[0]) for text in rollups) / 1024


@contextmanager
def saved(model: Any, tokenizer: Any) -> Iterator[Path]:
    """A folder with the checkpoint, meanwhile."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        yield Path(folder)


def compare_all(folder: Path, problems: Problems, name: str, turns: int) -> None:
    """Compare on one core, as a user has it who sets nothing, and with as many workers as cores."""
    cores = torch.get_num_threads()
    torch.set_num_threads(1)
    with serving(folder, "--threads", "1", OMP_NUM_THREADS="1") as server:
        compare(Reranker.load(folder), server.url, problems, f"{name}, one core", turns)
    torch.set_num_threads(cores)
    with serving(folder) as server:
        compare(Reranker.load(folder), server.url, problems, f"{name}, as they are", turns)
    with serving(folder, "--workers", str(cores)) as server:
        compare(Reranker.load(folder), server.url, problems, f"{name}, {cores} workers", turns)


def compare(reranker: Reranker, url: str, problems: Problems, how: str, turns: int) -> None:
    """Print the ratio of the rates."""
    numbers = count()
    best = {"score_many": float("inf"), "windows": float("inf"), "serve": float("inf")}
    for _ in range(turns):
        fresh = [(f"# {next(numbers)}\n{prompt}", texts) for prompt, texts in problems]
        ways = {
            "score_many": lambda fresh=fresh: list(reranker.score_many(fresh)),
            "windows": lambda fresh=fresh: list(reranker.score_many(fresh, CLIENTS * CANDIDATES)),
            "serve": lambda fresh=fresh: asyncio.run(load(url, iter(fresh))),
        }
        for way, work in ways.items():
            started = time.perf_counter()
            assert len(work()) == len(problems)
            best[way] = min(best[way], time.perf_counter() - started)
    rates = {way: len(problems) * CANDIDATES / seconds for way, seconds in best.items()}
    print(
        f"{how}: score_many {rates['score_many']:.0f} candidates/s, in windows of {CLIENTS * CANDIDATES} "
        f"{rates['windows'] / rates['score_many']:.2f} of it, serve at {CLIENTS} clients {rates['serve']:.0f}: ratio "
        f"{rates['serve'] / rates['score_many']:.2f} (goal {GOAL})",
        flush=True,
    )


def repeated(problems: Problems) -> Iterator[tuple[str, list[str]]]:
    """The problems again and again, each time with other prompts."""
    for number in count(10**6):
        prompt, texts = problems[number % len(problems)]
        yield f"# {number}\n{prompt}", texts


async def load(
    url: str, problems: Iterator[tuple[str, list[str]]], seconds: float = float("inf")
) -> Sequence[float]:
    """Seconds of each request; CLIENTS at once, until there are no more problems or the time is over."""
    target, times = httpx.URL(url), []
    end = time.perf_counter() + seconds

    async def client() -> None:
        reader, writer = await asyncio.open_connection(target.host, target.port)
        for prompt, texts in problems:
            started = time.perf_counter()
            if started > end:
                break
            body = json.dumps({"query": prompt, "documents": texts, "return_documents": False}).encode()
            head = f"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200"), answer
            length = next(
                line for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length:")
            )
            await reader.readexactly(int(length.split(b":")[1]))
            times.append(time.perf_counter() - started)
        writer.close()

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return times


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else LOAD_SECONDS)
