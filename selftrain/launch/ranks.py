"""Which of a stage's processes this one is: what torchrun, DeepSpeed's launcher and `launch` say in the environment."""

import os


def rank() -> int:
    """Its number among all of them, on all machines; 0 where it is alone."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """Its number on this machine; 0 where it is alone."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def world_size() -> int:
    """How many there are; 1 where it is alone."""
    return int(os.environ.get("WORLD_SIZE", "1"))
