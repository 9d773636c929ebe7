"""Scores of a candidate's tokens: which parts of a program a reranker likes, and which it does not.

A token's score is that of the loss on tokens (`selftrain.training.reward`): the score head on the state one layer below the last,
from which the last token's score is made. It means little for a reranker that was trained without that loss
(`reward.token_loss: 0`).
"""

from typing import NamedTuple

from selftrain.rerank.normal import Normal
from selftrain.rerank.reranker import Reranker

LONGEST_CHARACTER = 4
"""Most tokens that make up one character (the bytes of UTF-8)."""


class Piece(NamedTuple):
    """A token's text and score; where several tokens make up one character, their text and mean score."""

    text: str
    score: float


def token_scores(reranker: Reranker, form: Normal) -> list[Piece]:
    """The pieces of a candidate in normal form, whose texts joined are its completion; the end token is none."""
    import torch

    from selftrain.models.models import decode_completion, encode_completion, final_norm

    [[ids]] = reranker.encode([(form.prompt, [form.completion])])
    own = encode_completion(reranker.tokenizer, form.completion)[:-1]
    start = len(ids) - len(own) - 1
    model, norm = reranker.model, final_norm(reranker.model)
    device = next(model.parameters()).device
    with torch.inference_mode():
        states = model(
            input_ids=torch.tensor([ids], device=device), output_hidden_states=True, use_cache=False
        ).hidden_states
        state = states[-1] if norm is None else norm(states[-2])
        scores = (
            model.score(state.to(model.score.weight.dtype))[0, start : start + len(own), 0].float().tolist()
        )
    pieces: list[Piece] = []
    waiting: list[tuple[int, float]] = []
    for number, one in enumerate(zip(own, scores, strict=True), 1):
        waiting.append(one)
        text = decode_completion(reranker.tokenizer, [id for id, _ in waiting])
        last = number == len(own) or len(waiting) == LONGEST_CHARACTER
        if last or not text.endswith("\N{REPLACEMENT CHARACTER}"):
            pieces.append(Piece(text, sum(score for _, score in waiting) / len(waiting)))
            waiting = []
    return pieces
