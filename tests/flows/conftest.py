"""The tiny generator and reranker of the package's tests, for commands that load one."""

from tests.selftrain.conftest import generator, reranker

__all__ = ["generator", "reranker"]
