"""Pools of judged candidates, metrics over them, and comparisons of rerankers and runs."""
