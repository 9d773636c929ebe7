"""The routes: /rerank in four dialects, vLLM's /score and /classify, OpenRLHF's /get_reward."""

import math
import time
import uuid
from itertools import chain
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import JSONResponse

from sandbox.serve.guard import Json
from selftrain.serve.bodies import (
    Classify,
    Common,
    Rank,
    Rerank,
    Reranked,
    Reward,
    Rewarded,
    Score,
    Scored,
    text_of,
)
from selftrain.serve.refusals import REFUSALS, RERANK_REFUSALS
from selftrain.serve.service import Answer, Asked, Cut, Service
from selftrain.units import count_of


def router(service: Service) -> APIRouter:
    """All routes that score."""
    routes = APIRouter(responses=REFUSALS)
    _add_rerank(routes, service)
    _add_vllm(routes, service)
    _add_openrlhf(routes, service)
    return routes


def _add_rerank(routes: APIRouter, service: Service) -> None:
    async def rerank(body: Rerank, request: Request) -> JSONResponse:
        request.state.tei = body.texts is not None
        answer = await service.score(
            request, [(text_of(body.query), body.candidates, body.language)], _cut_of(body)
        )
        if not any(map(math.isfinite, answer.scores[0])):
            raise HTTPException(422, "; ".join(["no candidate can be ranked", *answer.warnings[:3]]))
        raw = body.raw_scores is True if request.state.tei else body.use_activation is False
        order = _order(answer.scores[0])
        if request.state.tei:
            return Json(_tei_ranks(body, answer, order, raw))
        return Json(_reranked(body, answer, order[: body.top_n or None], raw))

    for path in ("/rerank", "/v1/rerank", "/v2/rerank"):
        version = path.split("/")[1].replace("rerank", "plain")
        routes.post(
            path,
            response_model=Reranked | list[Rank],
            operation_id=f"rerank_{version}",
            responses=RERANK_REFUSALS,
            tags=["rerank"],
        )(rerank)


def _add_vllm(routes: APIRouter, service: Service) -> None:
    async def score(body: Score, request: Request) -> JSONResponse:
        prompts, texts = body.sides
        if len(prompts) == 1:
            prompts = prompts * len(texts)
        if len(prompts) != len(texts):
            raise HTTPException(
                422,
                f"expected 1 prompt or as many as candidates, got {count_of(len(prompts), 'prompt')} and {count_of(len(texts), 'candidate')}",
            )
        answer, raw, relevance = await _pairs(service, request, list(zip(prompts, texts, strict=True)), body)
        scores = relevance if body.use_activation else raw
        data = [{"index": at, "object": "score", "score": one} for at, one in enumerate(scores)]
        return Json(_listed("score", answer, data))

    for path in ("/score", "/v1/score"):
        routes.post(
            path, response_model=Scored, operation_id=path.strip("/").replace("/", "_"), tags=["vLLM"]
        )(score)

    @routes.post("/classify", response_model=Scored, tags=["vLLM"])
    async def classify(body: Classify, request: Request) -> JSONResponse:
        if body.messages:
            pairs = [(body.messages[0].content, body.messages[1].content)]
        else:
            inputs = [body.input] if isinstance(body.input, str) else body.input or []
            pairs = [_split(service, text, f"input {at}") for at, text in enumerate(inputs)]
        answer, raw, relevance = await _pairs(service, request, pairs, body)
        data = [
            {"index": at, "label": "LABEL_0", "probs": [one], "num_classes": 1}
            for at, one in enumerate(relevance if body.use_activation else raw)
        ]
        return Json(_listed("classify", answer, data))


def _add_openrlhf(routes: APIRouter, service: Service) -> None:
    @routes.post("/get_reward", response_model=Rewarded, tags=["OpenRLHF"])
    async def get_reward(body: Reward, request: Request) -> JSONResponse:
        if body.prompts is not None and len(body.prompts) != len(body.query):
            raise HTTPException(
                422,
                f"prompts: expected one for each query, got {len(body.prompts)} for {len(body.query)} queries",
            )
        pairs = [
            _split(service, text, f"query {at}", body.prompts[at] if body.prompts else None)
            for at, text in enumerate(body.query)
        ]
        _, raw, relevance = await _pairs(service, request, pairs, Common(language=body.language))
        return Json({"rewards": raw, "scores": relevance, "extra_logs": {}})


def _cut_of(body: Common) -> Cut:
    """How a request wants candidates cut."""
    total, side = body.truncate_prompt_tokens, body.truncation_side
    if not isinstance(body, Rerank):
        return Cut(total, None, side == "left")
    total = -1 if total is None and body.truncate else total
    side = side or (body.truncation_direction or "right").lower()  # type: ignore[assignment]
    return Cut(total, body.max_tokens_per_doc, side == "left")


def _order(scores: list[float]) -> list[int]:
    """Numbers of the candidates, best first."""
    return sorted(range(len(scores)), key=lambda at: -scores[at])


def _reranked(body: Rerank, answer: Answer, order: list[int], raw: bool) -> dict[str, Any]:
    texts, [scores] = body.candidates, answer.raw() if raw else answer.relevance()
    shown = body.return_documents is not False
    results = [
        {"index": at, "relevance_score": scores[at], **({"document": {"text": texts[at]}} if shown else {})}
        for at in order
    ]
    meta = {
        "api_version": {"version": "2"},
        "billed_units": {"search_units": 1},
        "tokens": {"input_tokens": answer.tokens, "output_tokens": 0},
    }
    return {
        "id": str(uuid.uuid4()),
        "model": answer.served.name,
        "usage": {"prompt_tokens": answer.tokens, "total_tokens": answer.tokens},
        "meta": meta | {"warnings": answer.warnings} if answer.warnings else meta,
        "results": results,
    }


def _tei_ranks(body: Rerank, answer: Answer, order: list[int], raw: bool) -> list[dict[str, Any]]:
    texts, [scores] = body.candidates, answer.raw() if raw else answer.relevance()
    shown = body.return_text
    return [{"index": at, "score": scores[at], **({"text": texts[at]} if shown else {})} for at in order]


async def _pairs(
    service: Service, request: Request, pairs: list[tuple[str, str]], body: Common
) -> tuple[Answer, list[float], list[float]]:
    """The answer for pairs of prompt and completion; and in the order of `pairs` their scores, and these between 0 and 1."""
    numbers: dict[str, list[int]] = {}  # each prompt is read once
    for at, (prompt, _) in enumerate(pairs):
        numbers.setdefault(prompt, []).append(at)
    problems: list[Asked] = [
        (prompt, [pairs[at][1] for at in ats], body.language) for prompt, ats in numbers.items()
    ]
    answer = await service.score(request, problems, _cut_of(body))
    places = list(chain.from_iterable(numbers.values()))
    in_order = sorted(range(len(places)), key=places.__getitem__)
    raw, relevance = (list(chain.from_iterable(rows)) for rows in (answer.raw(), answer.relevance()))
    return answer, [raw[at] for at in in_order], [relevance[at] for at in in_order]


def _split(service: Service, text: str, what: str, prompt: str | None = None) -> tuple[str, str]:
    """Prompt and completion of a text. `what`: its name for messages. `prompt`: the prompt, if the request has it."""
    served = service.source.served
    if prompt is not None:
        if not prompt:
            raise HTTPException(422, f"{what}: its prompt is empty")
        _, found, after = text.partition(prompt)
        if found:
            separator = served.reranker.tokenizer.sep_token
            return prompt, served.without_end(after.removeprefix(separator) if separator else after)
        raise HTTPException(422, f"{what}: expected its prompt with a completion; the prompt is not in it")
    if (pair := served.split(text)) is None:
        separator = served.reranker.tokenizer.sep_token
        how = (
            f"the prompt, {separator} and the completion"
            if separator
            else "messages (its tokenizer has no separator)"
        )
        raise HTTPException(422, f"{what}: expected {how}; got a text from which the prompt cannot be told")
    return pair


def _listed(kind: str, answer: Answer, data: list[dict[str, Any]]) -> dict[str, Any]:
    """vLLM's object around rows."""
    return {
        "id": f"{kind}-{uuid.uuid4().hex}",
        "object": "list",
        "created": int(time.time()),
        "model": answer.served.name,
        "data": data,
        "usage": {"prompt_tokens": answer.tokens, "total_tokens": answer.tokens},
    }
