"""Trains a reranker for generated code by iterative self-training; see README.md."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selftrain.reranker import Ranking, Reranker

__all__ = ["Ranking", "Reranker"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from selftrain import reranker

        return getattr(reranker, name)
    raise AttributeError(f"module 'selftrain' has no attribute {name!r}")
