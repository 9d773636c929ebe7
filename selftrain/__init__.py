"""Trains a reranker for generated code by iterative self-training; see README.md."""

import importlib
import sys
from typing import TYPE_CHECKING, Any

if sys.version_info < (3, 11):  # noqa: UP036 - older versions cannot parse the other modules
    raise ImportError(f"selftrain needs Python 3.11 or newer, this is {sys.version.split()[0]}")

if TYPE_CHECKING:
    from selftrain.generate.best_of import Best, best_of_n
    from selftrain.generate.generator import Generator
    from selftrain.rerank.picker import Picker
    from selftrain.rerank.reranker import Ranking, Reranker

_PLACES = {
    "Best": "generate.best_of",
    "best_of_n": "generate.best_of",
    "Generator": "generate.generator",
    "Picker": "rerank.picker",
    "Ranking": "rerank.reranker",
    "Reranker": "rerank.reranker",
}
__all__ = ["Best", "Generator", "Picker", "Ranking", "Reranker", "best_of_n"]


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(importlib.import_module(f"selftrain.{_PLACES[name]}"), name)
    raise AttributeError(f"module 'selftrain' has no attribute {name!r}")
