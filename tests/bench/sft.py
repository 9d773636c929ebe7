"""Benchmark: tokens per second of SFT, the child process of stage `sft` against a bare PyTorch loop.

The start of the process is not counted. Both train the demo's generator on the same batches of the bank, in one process on one
thread. The loop is what one would write by hand: pad, forward, backward, clip, AdamW, cosine schedule; no progress, log or
checkpoints.
"""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selftrain.config import BankConfig, ModelConfig, RuntimeConfig, SftConfig
from selftrain.models.models import encode_completion, encode_prompt, make_tiny, pad, train_tokenizer
from selftrain.problems.read import read_problems
from selftrain.records import Problem, write_records
from selftrain.stage import Context, Stage
from selftrain.stages.sft import SFT, SftSlice
from selftrain.training.common import bucketed_order

REPEATS, WARM_UP = 3, 10
"""Runs of each, and first steps of each that are not counted."""
MODEL = ModelConfig(vocabulary=1024, hidden_size=128, layers=3, heads=4)
SETTINGS = SftConfig(epochs=2, batch_size=64, micro_batch_size=64, learning_rate=3e-3)
RUNTIME = RuntimeConfig(processes=1, threads=1)


def main() -> None:
    """Measure and print; turns are taken, so that what else the machine does hits both alike."""
    torch.set_num_threads(1)
    sizes = {"sft": 1500, "rl": 1, "validation": 1, "test": 1}
    problems = [p for p in read_problems(BankConfig(sizes=sizes)) if p.split == "sft"]
    rows, tokenizer = corpus(problems)
    order = bucketed_order([len(ids) for ids, _ in rows], SETTINGS.epochs, SETTINGS.batch_size, seed=1)
    batches = [[rows[i] for i in order[at : at + 64]] for at in range(0, len(order), SETTINGS.batch_size)]
    tokens = sum(len(ids) for batch in batches[WARM_UP:] for ids, _ in batch)
    best = {"loop": 0.0, "sft": 0.0}
    for _ in range(REPEATS):
        torch.manual_seed(1)
        best["loop"] = max(best["loop"], tokens / train(make_tiny(MODEL, tokenizer), batches))
        best["sft"] = max(best["sft"], tokens / _child(problems, len(batches)))
    print(
        f"{len(batches) - WARM_UP} steps of {SETTINGS.batch_size} rows, {tokens:,} tokens, best of {REPEATS}"
    )
    for name, rate in best.items():
        print(f"  {name:<5} {rate:>8.0f} tokens/s  {rate / best['loop']:.2f} x loop")


def corpus(problems: Sequence[Problem]) -> tuple[list[tuple[list[int], list[int]]], Any]:
    """Per problem its token ids and labels, and the tokenizer; the same as the stage's."""
    pairs = [(p.prompt, p.response) for p in problems if p.response is not None]
    tokenizer = train_tokenizer([text for pair in pairs for text in pair], MODEL.vocabulary)
    rows = []
    for prompt, response in pairs:
        head, tail = encode_prompt(tokenizer, prompt), encode_completion(tokenizer, response)
        rows.append((head + tail, [-100] * len(head) + tail))
    return rows, tokenizer


def train(model: Any, batches: Sequence[Sequence[tuple[list[int], list[int]]]]) -> float:
    """The bare loop over `batches`; seconds after the warm-up."""
    model.train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=SETTINGS.learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(batches))
    started = time.perf_counter()
    for step, batch in enumerate(batches):
        if step == WARM_UP:
            started = time.perf_counter()
        ids, mask, labels = _padded(batch)
        model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return time.perf_counter() - started


def _padded(batch: Sequence[tuple[list[int], list[int]]]) -> tuple[Tensor, Tensor, Tensor]:
    rows = [ids for ids, _ in batch]
    return pad(rows, 0), pad([[1] * len(ids) for ids in rows], 0), pad([labels for _, labels in batch], -100)


def _child(problems: Sequence[Problem], steps: int) -> float:
    """Seconds from the end of the warm-up to the end of the last step, by the child's progress lines."""
    with tempfile.TemporaryDirectory() as scratch:
        inputs, folder = Path(scratch, "problems"), Path(scratch, "sft")
        inputs.mkdir()
        folder.mkdir()
        write_records(inputs / "problems.parquet", problems, Problem)
        config = SftSlice(seed=1, model=MODEL, base_digest=None, sft=SETTINGS)
        at = ends_of_steps(SFT, config, {"problems": inputs}, folder, RUNTIME)
    return at[steps] - at[WARM_UP]


def ends_of_steps(
    stage: Stage, config: Any, inputs: dict[str, Path], folder: Path, runtime: RuntimeConfig
) -> dict[int, float]:
    """Run a training stage; step -> the time of its end, in seconds, by the child's progress lines."""
    at: dict[int, float] = {}

    def progress(done: float, *_: Any, **__: Any) -> None:
        at[int(done)] = time.perf_counter()

    stage.run(Context(config, inputs, folder, runtime, progress))
    return at
