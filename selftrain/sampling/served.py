"""Engine `openai`: samples from a server with OpenAI's protocol (`/v1/completions`) that serves the generator's model.

Written for the servers of vLLM and llama.cpp, which take prompts as token ids and name the id of each sampled token with its
log-probability. No test runs them; tests run a server of their own with the same answers. The server's log-probabilities must
be those at temperature 1 (vLLM: `--logprobs-mode raw_logprobs`, the default). Environment variable OPENAI_API_KEY: the key.

llama.cpp names no token that ends inside a letter (a rare letter that has several tokens); the completion then lacks that letter.
"""

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import httpx

from selftrain.config import SampleConfig
from selftrain.errors import RunError, UsageError
from selftrain.sampling import Sample
from selftrain.sampling.engine import Prompts, Sampler, Stops
from selftrain.sampling.vllm import seed_of

CONCURRENT = 32
"""Number of requests at a time."""
WAITS = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each further try of a request that the server could not take now."""


Answer = TypeVar("Answer")


class Server:
    """A server with OpenAI's protocol.

    url    its address, to which `/completions` is added
    named  what messages call the address

    Methods raise UsageError where the server has another model or refuses a request, RunError where it cannot be reached or is too
    busy.
    """

    def __init__(self, url: str, named: str = "base_url") -> None:
        self.url, self.named = url.rstrip("/"), f"{named} {url}"
        self.key = os.environ.get("OPENAI_API_KEY", "")
        self.client = httpx.Client(
            headers={"Authorization": f"Bearer {self.key}"} if self.key else {}, timeout=600
        )

    def check_model(self, model: str | None) -> None:
        """Raise UsageError where the server's list of models lacks `model`: llama.cpp would answer with whatever it has."""
        try:
            names = [one["id"] for one in self.client.get(f"{self.url}/models").json()["data"]]
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return  # it has no list; what else is wrong the first completion tells
        if names and model not in names:
            raise UsageError(
                f"{self.named}: expected the model {model}, it serves "
                f"{', '.join(map(str, names))}; serve that model under this name (vLLM: --served-model-name, llama.cpp: --alias)"
            )

    def ask_all(
        self, path: str, bodies: Sequence[dict[str, Any]], read: Callable[[str, Iterable[str]], Answer]
    ) -> list[Answer]:
        """The answers to `bodies`, each made of its address and lines by `read`."""
        with ThreadPoolExecutor(CONCURRENT) as pool:
            return list(pool.map(lambda body: self._ask(f"{self.url}/{path}", body, read), bodies))

    def _ask(self, url: str, body: dict[str, Any], read: Callable[[str, Iterable[str]], Answer]) -> Answer:
        for wait in (*WAITS, None):
            try:
                with self.client.stream("POST", url, json=body) as answer:
                    if answer.is_success:
                        return read(url, answer.iter_lines())
                    answer.read()
                    problem = f"status {answer.status_code}: {answer.text}"
                    later = answer.status_code == 429 or answer.status_code >= 500
            except httpx.HTTPError as error:
                problem, later = f"{type(error).__name__}: {error}", True
            if not later or wait is None:
                break
            time.sleep(wait)
        hidden = problem.replace(self.key, "***") if self.key else problem
        kind = RunError if later else UsageError
        raise kind(f"{self.named}: no completion, {' '.join(hidden.split())[:300]}")


class Engine(Sampler):
    """Samples with the model `sample.served_model` of the server at `sample.base_url`; `folder` has its tokenizer.

    Each completion is one request with a seed of its own. Raises what `Server` raises, and UsageError where the server gives no
    log-probabilities with token ids.
    """

    def __init__(self, folder: Path, settings: SampleConfig, named: str = "sample.base_url") -> None:
        super().__init__(folder, settings)
        self.server = Server(str(settings.base_url), named)
        self.server.check_model(settings.served_model)

    def _sample(
        self, prompts: Prompts, n: int, seed: int, names: Sequence[str], stops: Stops
    ) -> list[list[Sample]]:
        asked = [
            self._body(prompt, n, f"{name}/{k}", texts)
            for prompt, name, texts in zip(prompts, names, stops, strict=True)
            for k in range(max(1, n))
        ]
        found = self.server.ask_all("completions", asked, sample_of)
        return [found[at : at + max(1, n)] for at in range(0, len(found), max(1, n))]

    def _body(self, prompt: Sequence[int], n: int, name: str, stops: Sequence[str]) -> dict[str, Any]:
        settings = self.settings
        drawn = {"temperature": settings.temperature, "top_p": settings.top_p, "seed": seed_of(name) % 2**31}
        return {
            "model": settings.served_model,
            "prompt": list(prompt),
            "max_tokens": settings.max_new_tokens,
            "logprobs": 1,
            "return_tokens_as_token_ids": True,  # vLLM's; llama.cpp names ids anyway
            # In one piece, llama.cpp's answer leaves out as many tokens as the stop text has by itself. Where a sampled token
            # has a part of the stop text and the code before it (`)\n`), that code would be lost.
            "stream": True,
            # Servers have defaults of their own: llama.cpp min_p 0.05, vLLM what the model's generation config says.
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            **({"stop": list(stops)} if stops else {}),
            **({"top_k": settings.top_k or 0} if n else {}),
            **(drawn if n else {"temperature": 0.0}),
        }


def choices(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The parts of a completion, in a server's answer that comes as events. Raises httpx.RemoteProtocolError for an error among
    them, ValueError, KeyError, TypeError or IndexError for anything else."""
    for line in lines:
        event = line.removeprefix("data:").strip() if line.startswith("data:") else ""
        if event in ("", "[DONE]"):
            continue
        try:
            part = json.loads(event)
        except RecursionError:
            raise ValueError("JSON nested too deeply") from None
        if "error" in part:
            raise httpx.RemoteProtocolError(str(part["error"]))
        yield from part["choices"][:1]


def sample_of(url: str, lines: Iterable[str]) -> Sample:
    """Convert a server's answer, which comes as events, to a `Sample`.

    Raises UsageError where it lacks log-probabilities or token ids, httpx.RemoteProtocolError where it breaks off.
    """
    ids: list[int] = []
    logprobs: list[float] = []
    reason = None
    try:
        for choice in choices(lines):
            reason = choice["finish_reason"] or reason
            given = choice["logprobs"]
            if given is None and not choice["text"]:
                continue  # llama.cpp's last event has the reason only
            if "content" in given:  # llama.cpp
                ids += [int(one["id"]) for one in given["content"]]
                logprobs += [float(one["logprob"]) for one in given["content"]]
            else:  # vLLM
                ids += [int(token.removeprefix("token_id:")) for token in given["tokens"]]
                logprobs += [float(one) for one in given["token_logprobs"]]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise UsageError(
            f"{url}: expected log-probabilities and token ids of each completion, as the servers of vLLM and llama.cpp "
            "give them, got none; use one of these, or another engine"
        ) from error
    if reason is None:
        raise httpx.RemoteProtocolError("the answer breaks off")
    return Sample(ids, logprobs, reason == "stop")
