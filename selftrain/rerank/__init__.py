"""The reranker, and scoring with it."""
