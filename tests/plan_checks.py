"""Checks a plan against what really happens: FLOPs as torch counts them, memory and time of the stages' child processes."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

from selftrain.config import RunConfig
from selftrain.launch.launch import Child
from selftrain.models.models import encode_prompt
from selftrain.models.shapes import Shape
from selftrain.plan import calibrate, flops
from selftrain.plan.corpus import Corpus
from selftrain.plan.flops import Rows
from selftrain.stage import plain


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
    folder: Path,
    config: RunConfig,
    shape: Shape,
    corpus: Corpus,
    sizes: calibrate.Sizes,
    patch: Callable[[Any, str, Any], None] = setattr,
) -> dict[str, tuple[float, float]]:
    """Estimated and counted FLOPs of a few SFT steps, reward steps and PPO steps, and of sampling a batch, in this process.

    The stages are the calibration's: the real ones on a few of the run's rows.
    """
    from selftrain.sampling import hf
    from selftrain.training import reward, sft
    from selftrain.training.ppo import train as ppo

    runtime = config.runtime.model_copy(update={"processes": 1})
    config = config.model_copy(update={"runtime": runtime})
    rows = calibrate.write_inputs(folder, config, corpus, sizes)
    counted: dict[str, float] = {}
    for module, name in ((sft, "sft"), (reward, "train_reward"), (ppo, "ppo")):

        def train(child: Child, name: str = name, original: Any = module.train) -> Any:
            with counting() as counter:
                outcome = original(child)
            counted[name] = counter.get_total_flops()
            return outcome

        patch(module, "train", train)
    child = Child(
        config={"run": plain(config, "run"), "sizes": asdict(sizes)},
        inputs={name: folder / name for name in ("base", "problems", "pairs", "pool")},
        folder=folder / "work",
        runtime=plain(runtime, "runtime"),
        extra={},
    )
    metrics = calibrate.run(child).metrics
    steps = [1 + count for count in sizes.steps]
    completion = metrics["ppo_tokens"] / rows["ppo"].count
    drawn = replace(rows["ppo"], completion=completion, width=rows["ppo"].prompt + completion)
    once = config.ppo.model_copy(update={"epochs": 1})
    estimated = {
        "sft": steps[0] * flops.sft(shape, rows["sft"], runtime, config.sft.lora),
        "train_reward": steps[1] * flops.reward(shape, rows["train_reward"], runtime, config.reward.lora),
        "ppo": steps[2]
        * (
            flops.decode(shape, drawn)
            + flops.ppo_experience(shape, shape, drawn, once)
            + flops.ppo_update(shape, drawn, once, runtime)
        ),
    }
    engine = hf.Engine(
        folder / "work" / "sft", config.sample.model_copy(update={"max_new_tokens": sizes.tokens})
    )
    asked = [p.prompt for p in corpus.problems if p.split == "rl"][:4]
    prompts = [encode_prompt(corpus.tokenizer, prompt) for prompt in asked]
    with counting() as counter:
        samples = [sample for many in engine.sample(prompts, 2, 1) for sample in many]
    counted["sample"] = counter.get_total_flops()
    longest = max(len(sample.token_ids) for sample in samples)
    estimated["sample"] = flops.decode(shape, Rows(len(samples), mean(map(len, prompts)), longest, 0))
    return {name: (estimated[name], counted[name]) for name in estimated}


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
