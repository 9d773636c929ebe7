"""Checks the candidates of HTTP requests against the limits, cuts them where that is asked for, and has them scored."""

import asyncio
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from fastapi import HTTPException, Request

from sandbox.serve.guard import RETRY_AFTER_SECONDS
from selftrain.errors import UsageError
from selftrain.rerank.normal import Normal
from selftrain.serve.batcher import Batcher, Ended, QueueFull
from selftrain.serve.metrics import Metrics
from selftrain.serve.served import Problem, Ranked, Served, Source
from selftrain.units import count_of

HUNG_UP = 499
"""The HTTP status of a request whose client has disconnected (so nobody reads it)."""
LARGE = 20_000
"""Characters of a request above which another thread reads it, so that small requests need not wait."""

MOST_CHARACTERS = 32_000_000
"""Characters of a request, its prompt counted for each candidate, as the token ids that are held have it."""

Asked = tuple[str, Sequence[str], str | None]
"""A prompt, its candidates, and their language if the request names it."""


@dataclass(frozen=True)
class Limits:
    """Limits on one request, and on all that wait.

    documents   candidates of a request
    characters  of one prompt or candidate
    queue       candidates that may wait
    stuck       seconds after which the candidates that are scored together count as stuck, for /healthz
    threads     scoring threads, see `Batcher`
    """

    documents: int = 1000
    characters: int = 200_000
    queue: int = 8192
    stuck: float = 300.0
    threads: int = 1


@dataclass(frozen=True)
class Cut:
    """How a request wants candidates cut.

    total     most tokens of prompt and candidate; -1: the reranker's longest input
    own       most tokens of a candidate
    keep_end  whether the end of a candidate is kept instead of its beginning

    Without `total` and `own`, a candidate that is too long cannot be scored.
    """

    total: int | None = None
    own: int | None = None
    keep_end: bool = False

    @property
    def asked(self) -> bool:
        """Whether candidates may be cut."""
        return self.total is not None or self.own is not None

    def most(self, served: Served, prompt: str, large: bool) -> float:
        """Most tokens of `prompt` and a candidate. `large`: as in `Served.read`."""
        bounds = [math.inf if served.context is None else served.context]
        if self.total is not None and self.total >= 0:
            bounds.append(self.total)
        if self.own is not None:
            bounds.append(served.lengths(prompt, [""], large)[0] + self.own)
        return min(bounds)


@dataclass(frozen=True)
class Answer:
    """Scores of a request's candidates.

    scores    [problems][candidates] by the ranking rule; minus infinity where a candidate cannot be scored
    tokens    tokens that the model has read
    warnings  what has to be said of candidates, one sentence each
    """

    scores: list[list[float]]
    tokens: int
    warnings: list[str]
    served: Served

    def relevance(self) -> list[list[float]]:
        """[problems][candidates] numbers between 0 and 1; 0 where a candidate cannot be scored."""
        return [list(map(self.served.relevance, row)) for row in self.scores]

    def raw(self) -> list[list[float]]:
        """[problems][candidates] finite scores, see `Served.least`."""
        least = self.served.least([score for row in self.scores for score in row])
        return [[max(score, least) for score in row] for row in self.scores]


class Service:
    """Serves requests with the reranker of `source`. `ended`: see `Batcher`."""

    def __init__(self, source: Source, limits: Limits, ended: Callable[[], object] = lambda: None) -> None:
        self.source, self.limits = source, limits
        self.metrics = Metrics()
        self.metrics.serves(source.served.name)
        self.batcher = Batcher(limits.queue, self.metrics, ended, limits.threads)
        self._readers = [ThreadPoolExecutor(1, thread_name_prefix="read") for _ in range(2)]

    def close(self) -> None:
        """Score what waits, then end the threads."""
        self.batcher.close()
        for reader in self._readers:
            reader.shutdown()

    async def score(self, request: Request, problems: Sequence[Asked], cut: Cut = Cut()) -> Answer:
        """Score the candidates of a request.

        Raises HTTPException 413 for too many or too long texts, 422 for an empty prompt and for one with too many tokens,
        503 if too many candidates wait or the scoring thread has ended, and HUNG_UP if the client disconnects.
        """
        self._check(problems)
        served = self.source.served
        large = sum(len(prompt) + sum(map(len, texts)) for prompt, texts, _ in problems) > LARGE
        reading = asyncio.get_running_loop().run_in_executor(
            self._readers[large], _read, served, problems, cut, large
        )
        try:
            read, tokens, warnings = await reading
        except UsageError as error:
            raise HTTPException(422, str(error)) from error
        self.metrics.tokens.inc(tokens)
        found = await self._ranked(request, served, read)
        number = 0
        for ranked in found:
            warnings += [
                f"candidate {number + at} cannot be scored: {why}" for at, why in ranked.refused.items()
            ]
            number += len(ranked.scores)
        warnings += dict.fromkeys(ranked.far for ranked in found if ranked.far)
        return Answer([ranked.scores for ranked in found], tokens, warnings, served)

    async def _ranked(self, request: Request, served: Served, problems: Sequence[Problem]) -> list[Ranked]:
        work = asyncio.create_task(self.batcher.score(served, problems))
        gone = asyncio.create_task(_gone(request))
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise HTTPException(HUNG_UP, "the client hung up")
            return work.result()
        except QueueFull as error:
            self.metrics.refused.inc()
            raise HTTPException(
                503,
                f"the queue is full: {error.waiting} candidates wait, allowed are {self.limits.queue}",
                {"Retry-After": str(RETRY_AFTER_SECONDS)},
            ) from error
        except Ended as error:
            raise HTTPException(503, str(error)) from error
        except UsageError as error:
            raise HTTPException(422, str(error)) from error
        finally:
            work.cancel()
            gone.cancel()

    def _check(self, problems: Sequence[Asked]) -> None:
        count = sum(len(texts) for _, texts, _ in problems)
        if not count:
            raise HTTPException(422, "expected at least one candidate, got none")
        if count > self.limits.documents:
            raise HTTPException(413, f"candidates: got {count}, allowed are at most {self.limits.documents}")
        held = sum(len(prompt) * len(texts) + sum(map(len, texts)) for prompt, texts, _ in problems)
        if held > MOST_CHARACTERS:
            raise HTTPException(
                413,
                f"characters, those of the prompt for each candidate: got {held}, allowed are at most {MOST_CHARACTERS}",
            )
        for prompt, texts, _ in problems:
            longest = max(map(len, (prompt, *texts)))
            if longest > self.limits.characters:
                raise HTTPException(
                    413,
                    f"characters of one text: got {longest}, allowed are at most {self.limits.characters}",
                )


def _read(
    served: Served, problems: Sequence[Asked], cut: Cut, large: bool
) -> tuple[list[Problem], int, list[str]]:
    """The problems as `served` reads them, with their candidates cut; the tokens that the model reads of all; and warnings.

    Raises HTTPException 422 for a prompt that is too long, UsageError as `Served.read` does.
    """
    found: list[Problem] = []
    warnings: list[str] = []
    tokens = number = 0
    for prompt, texts, language in problems:
        problem = served.read(prompt, texts, language, large)
        if cut.asked:
            problem, said = _cut(served, problem, cut, number, large)
            warnings += said
        lengths = map(problem.tokens, range(len(texts)))
        tokens += sum(length for length in lengths if served.context is None or length <= served.context)
        number += len(texts)
        found.append(problem)
    return found, tokens, warnings


def _cut(served: Served, problem: Problem, cut: Cut, first: int, large: bool) -> tuple[Problem, list[str]]:
    """The problem with its candidates cut, and warnings. `first`: the number of its first candidate in the request."""
    forms = list(problem.forms)
    warnings: list[str] = []
    bounds = {prompt: cut.most(served, prompt, large) for prompt in {form.prompt for form in forms}}
    for at, form in enumerate(forms):
        length, most = problem.tokens(at), bounds[form.prompt]
        if length <= most:
            continue
        shorter = served.shortened(form.prompt, form.completion, int(most), cut.keep_end, large)
        if shorter is None:
            raise HTTPException(
                422,
                f"the prompt alone has more tokens than are allowed for prompt and candidate, {most}; shorten it",
            )
        forms[at] = Normal(form.prompt, shorter.rstrip())
        warnings.append(
            f"candidate {first + at} was cut: {count_of(length, 'token')} with its prompt, allowed are {most}"
        )
    return served.read_forms(problem.prompt, forms, problem.language, large), warnings


async def _gone(request: Request) -> None:
    """Wait until the client has closed its connection. The request's body must have been read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
