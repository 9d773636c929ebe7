"""Assigns tasks to splits by a hash of the task's name and the seed: equal in all languages and on all machines."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from selftrain.config import SPLITS
from selftrain.problems.leaks import same_problem
from selftrain.records import Problem


def assign_splits(problems: Sequence[Problem], shares: Mapping[str, float], seed: int) -> list[Problem]:
    """`problems` with their splits. Tasks that are the same problem under two names go to the same split.

    `shares`: split -> share of the tasks; the shares sum to 1. Adding or removing a task does not move other tasks, except
    duplicates of it with a name that sorts later.
    """
    first = same_problem(problems)
    return [replace(problem, split=split_of(first[problem.task], shares, seed)) for problem in problems]


def split_of(task: str, shares: Mapping[str, float], seed: int) -> str:
    """The split of `task`: the shares divide [0, 1) into intervals, and a hash of (seed, task) chooses one of them."""
    return split_at(int.from_bytes(hashlib.sha256(f"{seed}/{task}".encode()).digest()[:8]) / 2**64, shares)


def split_at(at: float, shares: Mapping[str, float]) -> str:
    """The split whose interval contains `at`, a number in [0, 1)."""
    given = [split for split in SPLITS if shares.get(split)]
    for split in given:
        at -= shares[split]
        if at < 0:
            return split
    return given[-1]  # reached if rounding makes the shares sum to slightly less than 1
