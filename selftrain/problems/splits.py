"""Assigns tasks to splits, by the task's name and the seed alone: the same in every language and on every machine."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from selftrain.config import SPLITS
from selftrain.problems.leaks import same_problem
from selftrain.records import Problem


def assign_splits(problems: Sequence[Problem], shares: Mapping[str, float], seed: int) -> list[Problem]:
    """`problems` with their splits. Tasks that are the same problem under two names go to the same split.

    `shares`: split -> share of the tasks; they sum to 1. Adding or removing tasks does not move the others, unless one of
    them is the same problem under a name that sorts earlier.
    """
    first = same_problem(problems)
    return [replace(problem, split=split_of(first[problem.task], shares, seed)) for problem in problems]


def split_of(task: str, shares: Mapping[str, float], seed: int) -> str:
    """The split of `task`: its share contains the hash of (seed, task), read as a number in [0, 1)."""
    at = int.from_bytes(hashlib.sha256(f"{seed}/{task}".encode()).digest()[:8]) / 2**64
    given = [split for split in SPLITS if shares.get(split)]
    for split in given:
        at -= shares[split]
        if at < 0:
            return split
    return given[-1]  # rounding: the shares sum to slightly less than 1
