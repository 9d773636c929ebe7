"""`selftrain plan` against real runs on this machine: parameters, FLOPs, peak memory and time of each stage.

The demo's models always; SmolLM2-135M where SMOLLM2_DIR (see infra/fetch_smollm2.py) and MULTIPL_E_DIR name folders. Every
stage is shortened, its shapes are not. Each time is predicted from a calibration that has just ended.
"""

import os
import random
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from selftrain.plan.calibrate import Sizes, calibrate

from selftrain.config import RunConfig
from selftrain.configfile import load_config
from selftrain.models.models import encode_completion
from selftrain.models.shapes import Shape, shape_of
from selftrain.plan.corpus import Corpus, corpus_of
from selftrain.plan.estimate import Planner, Step
from selftrain.records import Candidate, Pair, Problem, read_records, write_records
from selftrain.rerank.scoring import Job, score_candidates
from selftrain.stage import Context
from selftrain.stages.ppo import PPO, PPOSlice
from selftrain.stages.sample import SAMPLE, SampleSlice
from selftrain.stages.sft import SFT, SftSlice
from selftrain.stages.train_reward import TRAIN_REWARD, RewardSlice
from tests.plan_checks import Watched, check_flops, watching

CASES: dict[str, tuple[dict[str, Any], int, int, Sizes]] = {
    # overrides, pairs, problems sampled for, what FLOPs are counted of
    "demo": ({"sft.epochs": 1, "reward.epochs": 1, "ppo.steps": 6}, 800, 3200, Sizes(16, 8, 32, 16, 4)),
    "smollm2-135m": (
        {"sft.epochs": 0.16, "reward.epochs": 1, "ppo.steps": 1},
        16,
        16,
        Sizes(1, 1, 2, 6, 1),
    ),
}


def main() -> None:
    """Check what is at hand, and print estimate, measurement and their ratio."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    for name in os.environ.get("PLAN_CASES", "demo smollm2-135m").split():
        overrides, pairs, asked, sizes = CASES[name]
        folder, data = os.environ.get("SMOLLM2_DIR"), os.environ.get("MULTIPL_E_DIR")
        if name == "smollm2-135m":
            if not folder or not data:
                print(f"{name}: left out, SMOLLM2_DIR and MULTIPL_E_DIR do not name its folders")
                continue
            overrides = overrides | {
                "model.base": folder,
                "problems.train": f"{data}/mbpp-py.jsonl",
                "problems.evaluation": f"{data}/humaneval-py.jsonl",
                "runtime.allow_no_isolation": True,
            }
        config = load_config(name, overrides)
        corpus = corpus_of(config)
        shape = shape_of(config.model, corpus.vocabulary)
        with tempfile.TemporaryDirectory() as scratch:
            for line in _times(Path(scratch), config, shape, corpus, pairs, asked):
                print(line, flush=True)
        with tempfile.TemporaryDirectory() as scratch:
            for part, (estimated, counted) in check_flops(
                Path(scratch), config, shape, corpus, sizes
            ).items():
                print(
                    f"{name}  {part:<14} FLOPs {estimated:.3e}, counted {counted:.3e}: {estimated / counted:.3f}"
                )


def _times(
    folder: Path, config: RunConfig, shape: Shape, corpus: Corpus, pairs: int, asked: int
) -> Iterator[str]:
    """Every stage through its own build."""
    name, runtime, seed = config.name, config.runtime, config.seed
    with watching("selftrain-plan-") as seen:
        speed = calibrate(config, shape, shape, corpus)
    share = seen.cpu / seen.seconds
    yield f"{name}  calibrated in {seen.seconds:.1f} s, with {share:.2f} CPUs: {speed}"
    rl = [p for p in corpus.problems if p.split == "rl"][:asked]
    kept = [p for p in corpus.problems if p.split != "rl"] + rl
    counts = corpus.counts | {"rl": {"py": len(rl)}}
    corpus = replace(corpus, counts=counts, problems=kept)
    for part in ("problems", "pairs", "sft", "reward", "ppo", "sample", "score"):
        (folder / part).mkdir()
    write_records(folder / "problems" / "problems.parquet", kept, Problem)

    def build(part: str, piece: Any, **inputs: str) -> Context:
        found = {key: folder / value for key, value in inputs.items()}
        return Context(piece, found, folder / part, runtime, lambda *_, **__: None)

    def planner(corpus: Corpus = corpus) -> Planner:
        return Planner(config, shape, shape, corpus, speed, pairs=pairs)

    with watching(folder) as seen:
        outcome = SFT.run(
            build(
                "sft",
                SftSlice(seed=seed, model=config.model, base_digest=None, sft=config.sft),
                problems="problems",
            )
        )
    yield f"{name}  parameters {shape.parameters}, of the model {outcome.metrics['parameters']}"
    yield _line(name, planner().sft(), seen, share)

    rng = random.Random(0)
    cap = config.sample.max_new_tokens
    learnt = [
        p
        for p in kept
        if p.split == "sft" and p.response and len(encode_completion(corpus.tokenizer, p.response)) <= cap
    ]
    drawn = [rng.choice(learnt) for _ in range(pairs)]
    rows = [
        Pair(p.id, p.prompt, rng.choice(learnt).response or "", p.response or "", "a", "b", "on_policy", 1)
        for p in drawn
    ]
    write_records(folder / "pairs" / "pairs.parquet", rows, Pair)
    with watching(folder) as seen:
        TRAIN_REWARD.run(
            build("reward", RewardSlice(seed=seed, reward=config.reward), pairs="pairs", start="sft")
        )
    yield _line(name, planner().reward(1), seen, share)

    piece: Any = PPOSlice(seed=seed, ppo=config.ppo, max_new_tokens=config.sample.max_new_tokens)
    with watching(folder) as seen:
        outcome = PPO.run(build("ppo", piece, problems="problems", generator="sft", reranker="reward"))
    tokens = sum(row["tokens"] for row in outcome.metrics["curve"])
    length = tokens / (config.ppo.steps * config.ppo.rollout_batch)
    yield f"{name}  PPO's completions {length:.1f} tokens, {sum(corpus.answers) / len(corpus.answers):.1f} were assumed"
    yield _line(name, planner(_as_long(corpus, length)).ppo(1), seen, share)

    piece = SampleSlice(seed=seed, sample=config.sample, splits=("rl",), count=config.sample.rl, greedy=False)
    with watching(folder) as seen:
        outcome = SAMPLE.run(build("sample", piece, problems="problems", generator="sft"))
    length = outcome.metrics["tokens"] / outcome.metrics["candidates"]
    yield f"{name}  sampled completions {length:.1f} tokens"
    step = next(planner(_as_long(corpus, length)).pool("sft", "rl"))
    yield _line(name, step, seen, share)

    pool = read_records(folder / "sample" / "candidates.parquet", Candidate)
    distinct = len({(c.problem_id, c.completion) for c in pool})
    with watching(folder) as seen:
        score_candidates(
            build("score", {}, problems="problems", reranker="reward", pool="sample"),
            [Job("mine", "reranker", "pool", ("rl",))],
        )
    yield f"{name}  {distinct / len(pool):.2f} of the candidates are distinct"
    step = planner(_as_long(corpus, length)).scoring(
        "mine-2", "mine", [(("rl",), round(distinct / 0.7))], 1, 0
    )
    yield _line(name, step, seen, share)


def _as_long(corpus: Corpus, length: float) -> Corpus:
    """The corpus, its completions of a measured mean length."""
    low = int(length)
    high = round(100 * (length - low))
    return replace(corpus, answers=[low] * (100 - high) + [low + 1] * high)


def _line(name: str, step: Step, seen: Watched, share: float) -> str:
    """`share`: CPUs that the calibration had; where others work on the machine too, the stage may have had fewer."""
    assert step.memory is not None
    return (
        f"{name}  {step.name:<14} {step.seconds:6.1f} s, was {seen.seconds:6.1f}: {step.seconds / seen.seconds:.2f} "
        f"(CPU {step.seconds * share / seen.cpu:.2f}, {seen.cpu / seen.seconds:.2f} CPUs)"
        f"   {step.memory.total / 1e6:6.0f} MB, was {seen.peak / 1e6:6.0f}: {step.memory.total / seen.peak:.2f}"
    )
