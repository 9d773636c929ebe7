"""Benchmark: `selftrain plan` against real runs on this machine: parameters, FLOPs, peak memory and time of each stage.

The demo's models are always measured, and SmolLM2-135M if SMOLLM2_DIR (see infra/fetch_smollm2.py) and MULTIPL_E_DIR name
folders. A short run comes first; then a longer run with another seed, whose plan takes its rates from the short run. Every
stage is shortened, but its shapes are unchanged.
"""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows.method import graph, method
from selftrain.config import RunConfig
from selftrain.configfile import load_config
from selftrain.models.shapes import shape_of
from selftrain.plan.corpus import corpus_of
from selftrain.plan.estimate import Step as Planned
from selftrain.plan.plan import Hardware, make_plan
from selftrain.store.store import Store
from tasks.run import Run, Step
from tests.plan_checks import Watched, check_flops, watching

SIZES = {"sft": 6000, "rl": 60, "validation": 10, "test": 20}
SHORT: dict[str, Any] = {
    "rounds": 1,
    "problems.sizes": SIZES,
    "sft.epochs": 0.5,
    "ppo.steps": 3,
    "sample.evaluation": 4,
    "sample.shard": 8,
}
LONG: dict[str, Any] = SHORT | {
    "seed": 2,
    "problems.sizes": SIZES | {"rl": 120},
    "sft.epochs": 1,
    "ppo.steps": 6,
}
FEW: dict[str, Any] = {
    "rounds": 1,
    "sft.epochs": 0.1,
    "reward.epochs": 0.2,
    "ppo.steps": 2,
    "sample.rl": 2,
    "sample.evaluation": 2,
}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], int, int]] = {
    # what is changed for the short and for the long run; rows and new tokens whose FLOPs are counted
    "demo": (SHORT, LONG, 32, 16),
    "smollm2-135m": (FEW, FEW | {"seed": 2, "sft.epochs": 0.2}, 2, 6),
}


def main() -> None:
    """Check what is at hand, and print estimate, measurement and their ratio."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    for name in os.environ.get("PLAN_CASES", "demo smollm2-135m").split():
        short, long, rows, tokens = CASES[name]
        more: dict[str, Any] = {}
        folder, data = os.environ.get("SMOLLM2_DIR"), os.environ.get("MULTIPL_E_DIR")
        if name == "smollm2-135m":
            if not folder or not data:
                print(f"{name}: left out, SMOLLM2_DIR and MULTIPL_E_DIR do not name its folders")
                continue
            more = {
                "model.base": folder,
                "problems.train": f"{data}/mbpp-py.jsonl",
                "problems.evaluation": f"{data}/humaneval-py.jsonl",
                "runtime.allow_no_isolation": True,
            }
        with tempfile.TemporaryDirectory() as scratch:
            more["store"] = f"{scratch}/store"
            _run(load_config(name, more | short))
            for line in _times(load_config(name, more | long)):
                print(f"{name}  {line}", flush=True)
        config = load_config(name, more)
        corpus = corpus_of(config)
        shape = shape_of(config.model, corpus.vocabulary)
        with tempfile.TemporaryDirectory() as scratch:
            found = check_flops(Path(scratch), config, shape, corpus, rows, tokens)
        for part, (estimated, counted) in found.items():
            ratio = estimated / counted
            print(f"{name}  {part:<14} FLOPs {estimated:.3e}, counted {counted:.3e}: {ratio:.3f}")


@dataclass
class Watching(Run):
    """A run in this process that watches the children of its stages."""

    seen: dict[str, Watched] = field(default_factory=dict)

    def execute(self, step: Step, there: bool) -> None:
        """Build the stage."""
        with watching(self.store.local / "work" / step.ref.stage / step.ref.key) as self.seen[step.name]:
            self.build(step)


def _run(config: RunConfig) -> Watching:
    """A whole run, and its record."""
    run = Watching(config, Store(config.store))
    method(run)
    run.record(finished=True)
    return run


def _times(config: RunConfig) -> Iterator[str]:
    """The plan of a run, and what the run then needed."""
    plan = make_plan(config, Hardware(), graph, store=lambda: Store(config.store))
    yield from plan.speed.said
    run = _run(config)
    measured = (run.store.manifest(run.steps["sft"].ref) or {})["metrics"]["parameters"]
    yield f"parameters {plan.shape.parameters}, of the model {measured}"
    for step in plan.steps:
        if step.seconds:
            yield _line(step, run.seen[step.name])
    whole = sum(step.seconds for step in plan.steps), sum(seen.seconds for seen in run.seen.values())
    yield f"whole run {whole[0]:.0f} s, was {whole[1]:.0f}: {whole[0] / whole[1]:.2f}"


def _line(step: Planned, seen: Watched) -> str:
    line = (
        f"{step.name:<24} {step.seconds:6.1f} s, was {seen.seconds:6.1f}: {step.seconds / seen.seconds:.2f}"
    )
    if step.memory is None:
        return line
    return f"{line}   {step.memory.total / 1e6:6.0f} MB, was {seen.peak / 1e6:6.0f}: {step.memory.total / seen.peak:.2f}"
