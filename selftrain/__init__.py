"""Trains a reranker for generated code by iterative self-training; see README.md."""

import sys
from typing import TYPE_CHECKING, Any

if sys.version_info < (3, 11):  # noqa: UP036 - older versions cannot parse the other modules
    raise ImportError(f"selftrain needs Python 3.11 or newer, this is {sys.version.split()[0]}")

if TYPE_CHECKING:
    from selftrain.rerank.picker import Picker
    from selftrain.rerank.reranker import Ranking, Reranker

__all__ = ["Picker", "Ranking", "Reranker"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from selftrain.rerank import picker

        return getattr(picker, name)
    raise AttributeError(f"module 'selftrain' has no attribute {name!r}")
