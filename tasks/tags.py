"""Prefect tags of each stage's task runs and of its parts on Dask workers, and what a step occupies while it works."""

from selftrain.config import RuntimeConfig
from selftrain.schedule import runs_a_model
from selftrain.stage import Step

TAGS: dict[str, tuple[str, ...]] = {
    "sft": ("training",),
    "sample": ("sampling",),
    "mine": ("scoring",),
    "train_reward": ("training",),
    "ppo": ("training",),
    "evaluate": ("scoring",),
}
"""Name of a stage -> tags; a stage that is not listed has none of these."""
RESOURCES = ("gpu", "sandbox")
"""What a step may occupy: the machine's GPUs, and the sandbox. The server's limits of these names bound it (`tasks.slots`)."""


def occupies(step: Step, runtime: RuntimeConfig) -> tuple[str, ...]:
    """Those of RESOURCES that the step's work needs."""
    elsewhere = step.stage.name == "sample" and step.config.sample.engine == "openai"  # on a server
    gpu = runtime.device == "cuda" and runs_a_model(step) and not elsewhere
    # A slice names the sandbox's tools exactly where the stage runs programs.
    sandbox = getattr(step.config, "toolchain", None) is not None
    return tuple(name for name, used in zip(RESOURCES, (gpu, sandbox), strict=True) if used)


def tags(step: Step, runtime: RuntimeConfig) -> list[str]:
    """The tags of the step's task run."""
    return [*TAGS.get(step.stage.name, ()), *occupies(step, runtime)]
