"""Builds the inputs of trainings of tiny models, and runs several such trainings at once."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from selftrain.config import ModelConfig, RewardConfig, RuntimeConfig, SftConfig
from selftrain.launch.launch import Child
from selftrain.records import Pair, Problem, write_records
from selftrain.stages.sft import SftSlice
from selftrain.stages.train_reward import RewardSlice
from tests.command import run_ranks
from tests.selftrain.conftest import TINY, make_problems

TEMPLATE = "# {x}\n{prompt}"


def problems_with_validation() -> list[Problem]:
    """`make_problems`, where those of the validation split have an answer too."""
    return [
        replace(p, response="    return n + 1\n") if p.split == "validation" else p for p in make_problems()
    ]


def make_pairs() -> list[Pair]:
    """Two pairs of each of eight problems; of half of them the wrong program passes half of the tests."""
    return [
        Pair(
            f"p{at}",
            f"def add{'x' * (at % 3)}(n):  # n + {at}\n",
            f"    return n + {at}\n" + " " * number,
            f"    return n {'-*'[number]} {at}\n",
            f"p{at}#0",
            f"p{at}#{number + 1}",
            "on_policy",
            1,
            gap=1 - 0.5 * (at % 2),
        )
        for at in range(8)
        for number in range(2)
    ]


def sft_job(folder: Path, base: Path | None, runtime: RuntimeConfig, **settings: Any) -> dict[str, Any]:
    """Stage `sft` into `folder`, from `base` or from nothing: 12 steps of 8 answers unless `settings` say otherwise."""
    folder.mkdir(parents=True)
    write_records(folder / "problems.parquet", problems_with_validation(), Problem)
    settings = {
        "epochs": 12,
        "batch_size": 8,
        "micro_batch_size": 4,
        "max_tokens": 96,
        "warmup_steps": 2,
    } | settings
    model = TINY if base is None else ModelConfig(base=str(base))
    config = SftSlice(seed=1, model=model, base_digest=None, sft=SftConfig(**settings))
    return _job("sft", folder, config, runtime, {"problems": folder})


def reward_job(
    folder: Path, start: Path, runtime: RuntimeConfig, continues: bool = False, **settings: Any
) -> dict[str, Any]:
    """Stage `train_reward` into `folder` from a generator, or from a reranker: batches of 4 pairs, 3 passes."""
    folder.mkdir(parents=True)
    write_records(folder / "pairs.parquet", make_pairs(), Pair)
    settings = {
        "epochs": 3,
        "batch_size": 4,
        "micro_batch_size": 2,
        "max_tokens": 96,
        "warmup_steps": 2,
    } | settings
    config = RewardSlice(seed=1, reward=RewardConfig(**settings), continues=continues)
    return _job("reward", folder, config, runtime, {"pairs": folder, "start": start})


def _job(
    stage: str, folder: Path, config: Any, runtime: RuntimeConfig, inputs: dict[str, Path]
) -> dict[str, Any]:
    work = Child(
        config=config.model_dump(), inputs=inputs, folder=folder, runtime=runtime.model_dump(), extra={}
    )
    return {"stage": stage, "child": work.model_dump(mode="json")}


def outcome(job: dict[str, Any]) -> dict[str, Any]:
    """What a job that was carried out ended with: digest and metrics."""
    return dict(json.loads((Child.model_validate(job["child"]).private / "outcome.json").read_text()))


def carry_out(folder: Path, jobs: list[dict[str, Any]], runtime: RuntimeConfig) -> list[dict[str, Any]]:
    """Outcomes of `jobs`, all in one process or one group of ranks."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "jobs.json").write_text(json.dumps(jobs))
    run_ranks(
        "tests.selftrain.training.children",
        folder / "jobs.json",
        ranks=runtime.processes,
        deepspeed=runtime.deepspeed is not None,
    )
    return [outcome(job) for job in jobs]
