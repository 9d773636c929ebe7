"""Compares a plan with measurements: FLOPs as torch counts them, memory and time of the stages' child processes."""

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

from accelerate.state import AcceleratorState, GradientState

from selftrain.cache_key import canonical_json
from selftrain.config import HealthConfig, RunConfig, RuntimeConfig
from selftrain.launch.launch import Child
from selftrain.models.footprint import micro_rows
from selftrain.models.models import encode_completion, encode_prompt, make_tiny
from selftrain.models.shapes import Shape
from selftrain.plan import flops
from selftrain.plan.corpus import Corpus, padded
from selftrain.plan.flops import Rows
from selftrain.records import Pair, Problem, write_records
from selftrain.sampling import hf
from selftrain.stages.ppo import PPOSlice
from selftrain.stages.sft import SftSlice
from selftrain.stages.train_reward import RewardSlice
from selftrain.store.store import PROGRESS
from selftrain.training import reward, sft
from selftrain.training.ppo import train as ppo

ONE = RuntimeConfig(processes=1)


@contextmanager
def counting() -> Iterator[Any]:
    """torch's FlopCounterMode, told of attention on CPU, which it does not know and would count as nothing."""
    import torch
    from torch.utils.flop_counter import (
        FlopCounterMode,
        sdpa_backward_flop_count,
        sdpa_flop_count,
    )

    def attention(query: Any, key: Any, value: Any, *rest: Any, out_shape: Any = None, **more: Any) -> int:
        return sdpa_flop_count(query, key, value)

    def attention_backward(
        grad: Any, query: Any, key: Any, value: Any, *rest: Any, out_shape: Any = None, **more: Any
    ) -> int:
        return sdpa_backward_flop_count(grad, query, key, value)

    aten = torch.ops.aten
    unknown = {
        aten._scaled_dot_product_flash_attention_for_cpu: attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward,
    }
    with FlopCounterMode(display=False, custom_mapping=unknown) as counter:
        yield counter


def check_flops(
    folder: Path, config: RunConfig, shape: Shape, corpus: Corpus, count: int, tokens: int
) -> dict[str, tuple[float, float]]:
    """Estimated and counted FLOPs of the stages' own functions in this process, on `count` of the run's rows for two steps each,
    with completions of at most `tokens` tokens."""
    rows = Few(config, corpus, count)
    rows.write(folder)
    if config.model.base is None:  # else the stage would train a tokenizer of its own on these few rows
        make_tiny(config.model, corpus.tokenizer).save_pretrained(folder / "base")
        corpus.tokenizer.save_pretrained(folder / "base")
        model = config.model.model_copy(update={"base": str(folder / "base")})
        config = config.model_copy(update={"model": model})
    found = {
        "sft": _sft(folder, config, shape, rows),
        "train_reward": _reward(folder, config, shape, rows),
        "ppo": _ppo(folder, config, shape, rows, tokens),
    }
    sample = config.sample.model_copy(update={"max_new_tokens": tokens})
    engine = hf.Engine(folder / "sft", sample)
    prompts = [encode_prompt(corpus.tokenizer, problem.prompt) for problem in rows.asked[:4]]
    with counting() as counter:
        samples = [sample for many in engine.sample(prompts, 2, 1) for sample in many]
    longest = max(len(sample.token_ids) for sample in samples)
    drawn = Rows(len(samples), mean(map(len, prompts)), longest, 0)
    found["sample"] = flops.decode(shape, drawn, 2), counter.get_total_flops()
    return found


class Few:
    """A few of a run's rows: problems to learn from, problems to sample for, and a pair of each of the former."""

    def __init__(self, config: RunConfig, corpus: Corpus, count: int) -> None:
        self.count = count
        self.learnt = [p for p in corpus.problems if p.split == "sft" and p.response][:count]
        asked = [p for p in corpus.problems if p.split == "rl"]
        asked.sort(key=lambda p: len(encode_prompt(corpus.tokenizer, p.prompt)))
        middle = max(0, len(asked) - count) // 2  # of similar lengths: the estimate knows of no padding
        self.asked = asked[middle : middle + count]
        self.pairs = [
            Pair(one.id, one.prompt, one.response or "", other.response or "", "a", "b", "on_policy", 1)
            for one, other in zip(self.learnt, self.learnt[1:] + self.learnt[:1], strict=True)
        ]
        self.prompts = [len(encode_prompt(corpus.tokenizer, p.prompt)) for p in self.learnt]
        self.answers = [len(encode_completion(corpus.tokenizer, p.response or "")) for p in self.learnt]
        self.asking = mean(len(encode_prompt(corpus.tokenizer, p.prompt)) for p in self.asked)

    def write(self, folder: Path) -> None:
        """Write them as the stages' inputs `problems` and `pairs`."""
        for name in ("problems", "pairs"):
            (folder / name).mkdir()
        write_records(folder / "problems" / "problems.parquet", [*self.learnt, *self.asked], Problem)
        write_records(folder / "pairs" / "pairs.parquet", self.pairs, Pair)

    def read(self, answers: Sequence[int], group: int) -> Rows:
        """What two steps read, one batch of everything each, with answers of so many tokens, padded in groups."""
        widths = [prompt + answer for prompt, answer in zip(self.prompts, answers, strict=True)]
        return Rows(2 * self.count, mean(self.prompts), mean(answers), padded(widths, group))


QUIET = {"epochs": 2, "checkpoint_steps": 10**6, "evaluation_steps": None, "warmup_steps": 0}


def _train(train: Any, folder: Path, name: str, config: Any, **inputs: str) -> tuple[Any, float]:
    """What a training stage's function returns, and the FLOPs that torch counts."""
    AcceleratorState._reset_state(True)
    GradientState._reset_state()  # the last stage's batches are at their end: each of ours would be taken for the last
    (folder / name / PROGRESS).mkdir(parents=True)
    child = Child(
        config=canonical_json(config, name),
        inputs={key: folder / value for key, value in inputs.items()},
        folder=folder / name,
        runtime=canonical_json(ONE, "runtime"),
        extra={},
    )
    with counting() as counter:
        outcome = train(child)
    return outcome, counter.get_total_flops()


def _sft(folder: Path, config: RunConfig, shape: Shape, rows: Few) -> tuple[float, float]:
    settings = config.sft.model_copy(update=QUIET | {"batch_size": rows.count})
    config_slice = SftSlice(seed=1, model=config.model, base_digest=None, sft=settings)
    _, counted = _train(sft.train, folder, "sft", config_slice, problems="problems")
    group = micro_rows(rows.count, settings.micro_batch_size, ONE)
    return flops.sft(shape, rows.read(rows.answers, group), ONE, settings.lora), counted


def _reward(folder: Path, config: RunConfig, shape: Shape, rows: Few) -> tuple[float, float]:
    settings = config.reward.model_copy(update=QUIET | {"batch_size": rows.count, "holdout": 0.0})
    config_slice = RewardSlice(seed=1, reward=settings)
    _, counted = _train(reward.train, folder, "reward", config_slice, pairs="pairs", start="sft")
    longer = list(map(max, rows.answers, rows.answers[1:] + rows.answers[:1]))
    one = rows.read(longer, micro_rows(rows.count, settings.micro_batch_size, ONE))
    return flops.train(shape, replace(one, count=2 * one.count), ONE, settings.lora), counted


def _ppo(folder: Path, config: RunConfig, shape: Shape, rows: Few, tokens: int) -> tuple[float, float]:
    settings = config.ppo.model_copy(
        update={
            "steps": 2,
            "rollout_batch": rows.count,
            "mini_batch": min(rows.count, config.ppo.mini_batch),
            "epochs": 1,
            "checkpoint_steps": 10**6,
            "probe": 0,
            "execution_weight": 0.0,
            "health": HealthConfig(max_kl=None, max_clip_fraction=None),
        }
    )
    config_slice = PPOSlice(seed=1, ppo=settings, max_new_tokens=tokens)
    inputs = {"problems": "problems", "generator": "sft", "reranker": "reward"}
    outcome, counted = _train(ppo.train, folder, "ppo", config_slice, **inputs)
    length = sum(row["tokens"] for row in outcome.metrics["curve"]) / (2 * rows.count)
    drawn = Rows(2 * rows.count, rows.asking, length, rows.asking + length)
    estimated = (
        flops.decode(shape, drawn)
        + flops.ppo_experience(shape, shape, drawn, settings)
        + flops.ppo_update(shape, drawn, settings, ONE)
    )
    return estimated, counted


@dataclass
class Watched:
    """What a child needed: bytes at its peak (the largest of its ranks), wall seconds, and CPU seconds of all ranks."""

    peak: int = 0
    seconds: float = 0.0
    cpu: float = 0.0


@contextmanager
def watching(folder: Path | str) -> Iterator[Watched]:
    """Watches the children that work in `folder` (or whose command line has that word): their VmHWM, read again and again until they are gone."""
    found, done = Watched(), threading.Event()
    ticks: dict[str, int] = {}
    word = str(folder).encode()

    def look() -> None:
        while not done.wait(0.1):
            for path in Path("/proc").glob("[0-9]*"):
                try:
                    command = (path / "cmdline").read_bytes()
                    if word not in command or b"torch.distributed.run" in command:
                        continue
                    lines = (path / "status").read_text().splitlines()
                    spent = (path / "stat").read_text().rpartition(")")[2].split()[11:13]
                except OSError:
                    continue
                peaks = [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")]
                found.peak = max([found.peak, *peaks])
                ticks[path.name] = sum(map(int, spent))

    thread = threading.Thread(target=look)
    thread.start()
    started = time.monotonic()
    try:
        yield found
    finally:
        found.seconds = time.monotonic() - started
        done.set()
        thread.join()
        found.cpu = sum(ticks.values()) / os.sysconf("SC_CLK_TCK")
