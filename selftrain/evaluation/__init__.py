"""Pools of executed candidates, metrics over them, and comparisons of rerankers and runs."""
