"""What one process makes of the trainings that the other tests repeat on two ranks, or load elsewhere."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from selftrain.config import RuntimeConfig
from tests.selftrain.training.made import TEMPLATE, carry_out, reward_job, sft_job

LORA = {"rank": 4, "alpha": 8, "dropout": 0.0}


@pytest.fixture(autouse=True)
def _no_batch_is_left() -> Iterator[None]:
    """A training that ends with an error leaves accelerate in the middle of its batches, and a later one in this process would
    take its own first batches for the last of those."""
    yield
    from accelerate.state import GradientState

    GradientState().dataloader_references = [None]


def the_jobs(folder: Path, generator: Path, runtime: RuntimeConfig) -> dict[str, Any]:
    """Full and LoRA, SFT and reward, with most of the options somewhere."""
    recomputing = runtime.model_copy(update={"gradient_checkpointing": True})
    evaluated = {"evaluation_steps": 4, "patience": 9, "holdout": 0.3}
    jobs = {
        "sft": sft_job(folder / "sft", generator, runtime, evaluation_steps=4, patience=9, checkpoint_steps=5),
        "sft-lora": sft_job(folder / "sft-lora", generator, recomputing, lora=LORA, learning_rate=0.02),
        "reward": reward_job(folder / "reward", generator, runtime, margin=0.5, template=TEMPLATE, **evaluated),
        "reward-lora": reward_job(
            folder / "reward-lora", generator, recomputing, lora=LORA, token_pool="mean", last_loss=0.7,
            learning_rate=0.02, checkpoint_steps=5,
        ),
        "reward-packed": reward_job(
            folder / "reward-packed", generator, recomputing, packed=True, magnitude=0.1, **evaluated
        ),
    }  # fmt: skip
    for name in ("sft", "reward-lora"):
        jobs[name]["again"] = True
    return jobs


@pytest.fixture(scope="session")
def alone(
    tmp_path_factory: pytest.TempPathFactory, generator: Path
) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Folder and outcome of each of the jobs, in one process."""
    folder = tmp_path_factory.mktemp("alone")
    runtime = RuntimeConfig(processes=1)
    jobs = the_jobs(folder, generator, runtime)
    found = carry_out(folder, list(jobs.values()), runtime)
    return {name: (folder / name, result) for name, result in zip(jobs, found, strict=True)}
