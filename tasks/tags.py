"""The Prefect tags of each stage's task runs, and of its parts on Dask workers: concurrency limits of the server go by them."""

TAGS: dict[str, tuple[str, ...]] = {
    "prepare": ("sandbox",),
    "sft": ("training",),
    "sample": ("sampling",),
    "execute": ("sandbox",),
    "mine": ("scoring",),
    "train_reward": ("training",),
    "ppo": ("training",),
    "evaluate": ("scoring",),
}
"""By the stage's name; a stage that is not here has none."""
