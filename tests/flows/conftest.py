"""The tiny generator and reranker of the package's tests, for commands that load one, a picker without a generator, a webhook."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from selftrain.rerank.picker import Picker
from selftrain.rerank.reranker import Reranker
from tests.selftrain.conftest import generator, reranker
from tests.webhook import Webhook, listening

__all__ = ["generator", "reranker"]


@pytest.fixture
def picker(reranker: Path, monkeypatch: pytest.MonkeyPatch) -> Picker:
    """A picker by score + 1000 x log-probability, of a run whose generator is gone; `load_ranker` gives it for any place."""
    run = {"name": "a run", "stages": {}, "config": {"problems": {"source": "bank", "languages": ["py"]}}}
    overall = {
        "problems": 1,
        "rankers": {"rm-1+logprob": {"value": 1.0}},
        "random": {"value": 0.5},
    }
    evaluated = {
        "logprob_weights": {"rm-1": 1000.0},
        "evaluation": {"pools": {"sft": {"overall": overall}}},
    }
    picker = Picker(run, Reranker.load(reranker), "rm-1+logprob", evaluated)
    vars(picker.likelihood)["lowest"] = -1.0
    monkeypatch.setattr("selftrain.rerank.ranker.load_ranker", lambda *_: picker)
    return picker


@pytest.fixture(scope="module")
def webhook() -> Iterator[Webhook]:
    """A running webhook."""
    with listening() as hook:
        yield hook
