"""Problems: where they come from, which split each is in, and that none to evaluate on is one to train on."""

from selftrain.problems.leaks import check_leaks
from selftrain.problems.read import checker_languages, content_digest, find_problems, read_problems

__all__ = ["check_leaks", "checker_languages", "content_digest", "find_problems", "read_problems"]
