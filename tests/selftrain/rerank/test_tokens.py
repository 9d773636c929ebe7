"""Tests of the scores of tokens, against a forward pass by hand."""

from pathlib import Path

import pytest
import torch

from selftrain.models.models import encode_completion
from selftrain.rerank.normal import Normal
from selftrain.rerank.reranker import Reranker
from selftrain.rerank.tokens import token_scores

PROMPT = "def addx(n):  # n + 3\n"


def test_token_scores_are_the_heads_on_the_states_below_the_last_layer(reranker: Path) -> None:
    loaded = Reranker.load(reranker)
    text = "    return n + 3"
    pieces = token_scores(loaded, *loaded.forms(PROMPT, [text + "\n"]))
    assert "".join(piece.text for piece in pieces) == text  # the normal form has no line break at its end
    [[ids]] = loaded.encode([(PROMPT, [text])])
    own = encode_completion(loaded.tokenizer, text)[:-1]
    assert ids[-len(own) - 1 : -1] == own
    with torch.inference_mode():
        hidden = loaded.model(torch.tensor([ids]), output_hidden_states=True).hidden_states[-2]
        expected = (loaded.model.model.norm(hidden) @ loaded.model.score.weight.T)[0, -len(own) - 1 : -1, 0]
    assert len(pieces) == len(own)
    assert [piece.score for piece in pieces] == pytest.approx(expected.tolist(), abs=1e-4)


def test_a_character_of_several_tokens_is_one_piece(reranker: Path) -> None:
    pieces = token_scores(Reranker.load(reranker), Normal(PROMPT, "    return '\U0001f600é'"))
    assert "".join(piece.text for piece in pieces) == "    return '\U0001f600é'"
    assert "\U0001f600" in [piece.text for piece in pieces]
