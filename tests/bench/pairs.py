"""Benchmark: pairs per second of reward training at the shape of Qwen2.5-Coder-0.5B (494 M parameters, 151,936 tokens).

The weights are random, the pairs of the length of those mined from MBPP's problems: a prompt of 110 tokens, programs of 60. Each row
adds one setting to the row before: all weights in float32 with a row for each program, then a pair in one row that reads its
prompt once, low-rank adapters, bfloat16, and the first 16 layers. The child process of stage `train_reward` trains on two pairs a
step, in one process on all cores; its start and its first step are not counted.
"""

import os
import tempfile
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import torch

from selftrain.config import BankConfig, LoraConfig, RewardConfig, RuntimeConfig
from selftrain.models.models import encode_completion, load_tokenizer, train_tokenizer
from selftrain.problems.read import read_problems
from selftrain.records import Pair, write_records
from selftrain.stages.train_reward import TRAIN_REWARD, RewardSlice
from tests.bench.sampling import coder_shape
from tests.bench.sft import ends_of_steps

PROMPT, PROGRAM, STEPS, BATCH = 110, 60, 6, 2
SETTINGS: dict[str, dict[str, Any]] = {
    "all weights, float32, a row each": {},
    "+ one row, the prompt once": {"packed": True},
    "+ low-rank adapters": {"lora": LoraConfig(rank=16, alpha=32)},
    "+ bfloat16": {"compute_type": "bfloat16"},
    "+ first 16 of 24 layers": {"layers": 16},
}


def main() -> None:
    """Measure and print."""
    threads = len(os.sched_getaffinity(0))
    torch.manual_seed(0)
    bank = [
        p
        for p in read_problems(BankConfig(sizes={"sft": 200, "rl": 1, "validation": 1, "test": 1}))
        if p.response
    ]
    tokenizer = train_tokenizer([text for p in bank for text in (p.prompt, p.response or "")], 1024)
    print(f"{STEPS - 1} steps of {BATCH} pairs, {threads} threads")
    settings: dict[str, Any] = {
        "token_pool": "mean",
        "batch_size": BATCH,
        "micro_batch_size": BATCH,
        "epochs": 1,
    }
    first = 0.0
    with tempfile.TemporaryDirectory() as scratch:
        start, inputs = Path(scratch, "start"), Path(scratch, "pairs")
        inputs.mkdir()
        coder_shape(tokenizer).save_pretrained(start)
        tokenizer.save_pretrained(start)
        pairs = make_pairs(load_tokenizer(start), [p.response or "" for p in bank])
        write_records(inputs / "pairs.parquet", pairs, Pair)
        for number, (name, changes) in enumerate(SETTINGS.items()):
            settings |= changes
            folder = Path(scratch, str(number))
            folder.mkdir()
            rate = pairs_per_second(
                RewardConfig(**settings), {"pairs": inputs, "start": start}, folder, threads
            )
            first = first or rate
            print(f"  {name:<34} {rate:>6.2f} pairs/s  {rate / first:.2f} x the first", flush=True)


def make_pairs(tokenizer: Any, programs: Sequence[str]) -> list[Pair]:
    """Pairs of texts of about PROMPT and PROGRAM tokens, made of the programs' lines."""
    lines = cycle(line for program in programs for line in program.splitlines(keepends=True))

    def text(tokens: int) -> str:
        found = ""
        while len(encode_completion(tokenizer, found)) < tokens:
            found += next(lines)
        return found

    return [
        Pair(
            f"p{number}", text(PROMPT), text(PROGRAM), text(PROGRAM), f"sft/p{number}#0", f"sft/p{number}#1",
            "on_policy", 1,
        )
        for number in range(STEPS * BATCH)
    ]  # fmt: skip


def pairs_per_second(settings: RewardConfig, inputs: dict[str, Path], folder: Path, threads: int) -> float:
    """From the end of the first step to that of the last."""
    runtime = RuntimeConfig(processes=1, threads=threads)
    at = ends_of_steps(TRAIN_REWARD, RewardSlice(seed=1, reward=settings), inputs, folder, runtime)
    return BATCH * (STEPS - 1) / (at[STEPS] - at[1])


if __name__ == "__main__":
    main()
