"""Problems: reads them from their sources, assigns splits, and checks that no evaluation problem is in the training data."""

from selftrain.problems.leaks import check_leaks
from selftrain.problems.read import checker_languages, content_digest, find_problems, read_problems

__all__ = ["check_leaks", "checker_languages", "content_digest", "find_problems", "read_problems"]
