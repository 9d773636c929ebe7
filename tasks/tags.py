"""Prefect tags of each stage's task runs and of its parts on Dask workers, for concurrency limits on the server."""

TAGS: dict[str, tuple[str, ...]] = {
    "prepare": ("sandbox",),
    "sft": ("training",),
    "sample": ("sampling",),
    "execute": ("sandbox",),
    "mine": ("scoring",),
    "train_reward": ("training",),
    "ppo": ("training",),
    "agree": ("sandbox",),
    "evaluate": ("scoring",),
}
"""Name of a stage -> tags; a stage that is not listed has none."""
