"""Samples from any server with OpenAI's protocol that takes and gives texts: `/completions`, or `/chat/completions` for chat models.

Log-probabilities are used where the server gives them: those of vLLM, llama.cpp and OpenAI do, and Ollama's from version 0.12.11 on.
No test runs these; tests run a server of their own with the same answers.
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import httpx

from selftrain.config import SampleConfig
from selftrain.errors import UsageError
from selftrain.generate import Sampled
from selftrain.problems.chat import completion_of, question
from selftrain.records import Problem
from selftrain.sampling.served import Server, choices
from selftrain.sampling.vllm import seed_of


class _Written(NamedTuple):
    """A server's answer.

    text      what the model wrote
    tokens    (text, log-probability) of each token; empty where the server names none
    finished  whether an end token or a stop text ended it
    """

    text: str
    tokens: list[tuple[str, float]]
    finished: bool


class Endpoint:
    """The model `model` of the server at `base_url`, as a chat model or not."""

    def __init__(self, base_url: str, model: str, chat: bool) -> None:
        try:
            host = httpx.URL(base_url).host
        except httpx.InvalidURL:
            host = ""
        if not base_url.startswith(("http://", "https://")) or "@" in base_url or not host:
            raise UsageError(
                f"base_url {base_url!r}: expected an address such as http://127.0.0.1:8000/v1, without a password"
            )
        self.model, self.chat = model, chat
        self.server = Server(base_url)
        self.server.check_model(model)

    def draw(
        self, problems: Sequence[Problem], n: int, settings: SampleConfig, seed: int
    ) -> list[list[Sampled]]:
        """See `generator.Draw`. Each completion is a request of its own, since not all servers give several."""
        return [self._drawn(problem, n, settings, seed) for problem in problems]

    def _drawn(self, problem: Problem, n: int, settings: SampleConfig, seed: int) -> list[Sampled]:
        stops = () if self.chat else problem.stop_tokens
        asked: dict[str, Any] = {
            "model": self.model,
            "max_tokens": settings.max_new_tokens,
            "temperature": settings.temperature if n else 0.0,
            "top_p": settings.top_p,
            "logprobs": True if self.chat else 1,
            "stream": True,
            **({"stop": list(stops)} if stops else {}),
        }
        if self.chat:
            asked["messages"] = [{"role": "user", "content": question(problem.prompt, problem.language)}]
        else:
            asked["prompt"] = problem.prompt
        bodies = [
            asked | {"seed": seed_of(f"{seed}/{problem.prompt}/{at}") % 2**31} for at in range(max(1, n))
        ]
        path = "chat/completions" if self.chat else "completions"
        return [self._sampled(problem, one) for one in self.server.ask_all(path, bodies, written)]

    def _sampled(self, problem: Problem, found: _Written) -> Sampled:
        text = completion_of(problem, found.text, "chat" if self.chat else "completion")
        # The tokens that the completion keeps: those of its text, and of a chat model's whole answer.
        wanted = len(found.text if self.chat else text)
        ends = [0, *itertools.accumulate(len(token) for token, _ in found.tokens)]
        kept = [
            logprob for start, (_, logprob) in zip(ends, found.tokens, strict=False) if start < max(1, wanted)
        ]
        cut_here = len(text) < len(found.text) and not self.chat
        return Sampled(
            text,
            sum(kept) / len(kept) if kept else None,
            len(kept),
            "stop" if found.finished or cut_here else "length",
        )


def written(url: str, lines: Iterable[str]) -> _Written:
    """Read a server's answer, which comes as events, of either kind of request.

    Raises UsageError where it is no completion, httpx.RemoteProtocolError where it breaks off.
    """
    text, reason = "", None
    tokens: list[tuple[str, float]] = []
    try:
        for choice in choices(lines):
            reason = choice.get("finish_reason") or reason
            text += choice.get("text") or (choice.get("delta") or {}).get("content") or ""
            given = choice.get("logprobs") or {}
            named = [(one["token"], one["logprob"]) for one in given.get("content") or ()]
            named += zip(given.get("tokens") or (), given.get("token_logprobs") or (), strict=True)
            if not all(isinstance(token, str) for token, _ in named):
                raise TypeError("a token is no text")
            tokens += [(token, float(logprob)) for token, logprob in named]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{url}: expected a completion as OpenAI's protocol has it: {error}") from error
    if reason is None:
        raise httpx.RemoteProtocolError("the answer breaks off")
    return _Written(text, tokens, reason == "stop")
