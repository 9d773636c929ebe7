"""Reads this process's rank and the number of ranks from the environment variables that the launchers set."""

import os


def rank() -> int:
    """This process's rank among the processes of all machines; 0 for a single process."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """This process's rank among the processes of this machine; 0 for a single process."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def world_size() -> int:
    """The number of processes on all machines; 1 for a single process."""
    return int(os.environ.get("WORLD_SIZE", "1"))
