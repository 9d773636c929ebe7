"""Benchmark: does PPO (GRPO, RLOO) with execution as the reward raise the greedy pass rate of the demo's SFT policy?

Three seeds, each with its own problems. The policy is trained on the rl split. Before and after, the greedy completion of each
problem of the validation split is executed, and the paired differences are reported. The goal is at most 15 minutes of PPO per
seed on two cores. SELFTRAIN_BENCH_STORE names a folder that keeps the SFT policies for the next call, and
SELFTRAIN_BENCH_ALGORITHM is `ppo.algorithm`.
"""

import os
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

from selftrain.configfile import load_config
from selftrain.evaluation.metrics import bootstrap_weights
from selftrain.models.models import load_classifier, load_tokenizer
from selftrain.records import Execution, Problem, read_records
from selftrain.stage import Context
from selftrain.stages.execute import EXECUTE, ExecuteSlice
from selftrain.stages.ppo import PPO, PPOSlice
from selftrain.stages.sample import SAMPLE, SampleSlice
from selftrain.store.store import Store
from tasks.run import Run, Step
from tasks.sandbox import sandbox_at_work
from tasks.stages import prepare, sft, toolchain

SEEDS = (1, 2, 3)
SETTINGS = {
    "problems.sizes": {"sft": 6000, "rl": 1600, "validation": 150, "test": 1},
    "ppo.execution_weight": 1.0,
    "ppo.algorithm": os.environ.get("SELFTRAIN_BENCH_ALGORITHM", "ppo"),
    "ppo.steps": 40,
    "ppo.kl_coefficient": 0.03,
    "ppo.missing_end_penalty": 0.0,
}


class Here(Run):
    """Stages in this process, one after the other."""

    def execute(self, step: Step, there: bool) -> None:
        """Context it unless it is there."""
        if not there:
            self.build(step)


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as scratch:
        for seed in SEEDS:
            one_seed(seed, os.environ.get("SELFTRAIN_BENCH_STORE", scratch), Path(scratch) / f"ppo-{seed}")


def one_seed(seed: int, store: str, folder: Path) -> None:
    """Train, and print what came of it."""
    run = Here(load_config("demo", SETTINGS | {"seed": seed, "store": store}), Store(store))
    problems = prepare(run)
    generator = sft(run, problems)
    inputs = {"problems": run.store.path(problems), "generator": run.store.path(generator)}
    inputs["reranker"] = folder / "reranker"  # its score has no weight
    model = load_classifier(inputs["generator"], fresh_head=True)
    tokenizer = load_tokenizer(inputs["generator"])
    model.config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(inputs["reranker"])
    tokenizer.save_pretrained(inputs["reranker"])
    config = run.config
    piece = PPOSlice(
        seed=seed, ppo=config.ppo, max_new_tokens=config.sample.max_new_tokens, execute=config.execute,
        toolchain=toolchain(run),
    )  # fmt: skip
    policy = folder / "policy"
    policy.mkdir()
    started = time.monotonic()
    curve = PPO.run(_context(run, piece, policy, inputs)).metrics["curve"]
    seconds = time.monotonic() - started
    before = greedy(run, folder / "before", inputs)
    after = greedy(run, folder / "after", inputs | {"generator": policy})
    tasks = [
        p.task
        for p in read_records(inputs["problems"] / "problems.parquet", Problem)
        if p.split == "validation"
    ]
    weights = bootstrap_weights(tasks)
    low, high = np.quantile(weights @ (after - before) / weights.sum(1), (0.025, 0.975))
    print(
        f"seed {seed}: greedy pass rate on {len(tasks)} problems {before.mean():.3f} -> {after.mean():.3f}, "
        f"{(after - before).mean():+.3f} [{low:+.3f}, {high:+.3f}]; sampled on rl "
        f"{curve[0]['pass_rate']:.3f} -> {curve[-1]['pass_rate']:.3f}; KL {curve[-1]['kl']:.3f} nats a token; "
        f"PPO {seconds / 60:.1f} min",
        flush=True,
    )


def greedy(run: Here, folder: Path, inputs: dict[str, Path]) -> "np.ndarray":
    """Whether the greedy completion of each problem of the validation split passes, 0 or 1, in the problems' order."""
    pool, verdicts = folder / "sample", folder / "execute"
    for path in (pool, verdicts):
        path.mkdir(parents=True)
    piece = SampleSlice(seed=1, sample=run.config.sample, splits=("validation",), count=1, greedy=True)
    SAMPLE.run(_context(run, piece, pool, inputs))
    slice_ = ExecuteSlice(execute=run.config.execute, toolchain=toolchain(run))
    EXECUTE.run(_context(run, slice_, verdicts, {"problems": inputs["problems"], "candidates": pool}))
    rows = read_records(verdicts / "executions.parquet", Execution)
    return np.array([float(row.passed) for row in rows if row.candidate_id.endswith("#-1")])


def _context(run: Here, piece: object, folder: Path, inputs: dict[str, Path]) -> Context:
    def progress(done: float, total: float, unit: str = "", figures: object = None) -> None:
        if os.environ.get("SELFTRAIN_BENCH_VERBOSE"):
            print(done, total, unit, figures, flush=True)

    sandbox = partial(sandbox_at_work, run.config.runtime)
    return Context(
        piece, inputs, folder, run.config.runtime, progress, shared=run.store.local, sandbox=sandbox
    )
