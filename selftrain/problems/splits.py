"""Which split a task belongs to: by its name and the seed alone, the same in every language and on every machine."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from selftrain.config import SPLITS
from selftrain.problems.leaks import same_problem
from selftrain.records import Problem


def assign_splits(problems: Sequence[Problem], shares: Mapping[str, float], seed: int) -> list[Problem]:
    """`problems` with their split. Tasks that are the same problem under two names go to the same one.

    `shares`: of the tasks, by split; they sum to 1. A task stays in its split when others come or go, unless one of them
    is the same problem under a name that sorts before its own.
    """
    first = same_problem(problems)
    return [replace(problem, split=split_of(first[problem.task], shares, seed)) for problem in problems]


def split_of(task: str, shares: Mapping[str, float], seed: int) -> str:
    """The split of `task`: the share that a hash of (seed, task), taken for a number in [0, 1), falls into."""
    at = int.from_bytes(hashlib.sha256(f"{seed}/{task}".encode()).digest()[:8]) / 2**64
    given = [split for split in SPLITS if shares.get(split)]
    for split in given:
        at -= shares[split]
        if at < 0:
            return split
    return given[-1]  # the shares sum to 1 but for rounding
