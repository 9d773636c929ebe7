"""Benchmark: tokens per second of each sampling engine on two models.

One has 5 M parameters and writes up to 64 tokens on one thread, in two shapes: 64 prompts x 1 sample, and 16 prompts x 16
samples, as pools of candidates are sampled. `generate` is transformers' own generate() as a user would call it; `hf` is this
project's engine on transformers. The other has the shape of Qwen2.5-Coder-0.5B (494 M parameters, 151,936 tokens) with random
weights, on all cores: there the vocabulary counts, so engines draw from all of it, from the 50 likeliest tokens, and from a
nucleus; engine hf also in bfloat16. Engine vllm needs a GPU and is not measured.
"""

import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from selftrain.config import BankConfig, ModelConfig, SampleConfig
from selftrain.models.models import (
    encode_prompt,
    load_generator,
    load_tokenizer,
    make_tiny,
    pad,
    train_tokenizer,
)
from selftrain.problems.read import read_problems
from selftrain.sampling import ct2, hf

SHAPES = ((64, 1), (16, 16))
NEW_TOKENS, REPEATS = 64, 3
LARGE_SAMPLES, LARGE_TOKENS = 16, 16
PEAK = 12.0
"""Factor of the large model's logits, with which its distributions are about as peaked as a trained model's."""


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sizes = {"sft": 200, "rl": 1, "validation": 1, "test": 1}
    problems = read_problems(BankConfig(sizes=sizes))
    texts = [text for p in problems if p.response for text in (p.prompt, p.response)]
    tokenizer = train_tokenizer(texts, 1024)
    model = make_tiny(ModelConfig(hidden_size=256, layers=6, heads=8), tokenizer)
    settings = SampleConfig(temperature=1.0, max_new_tokens=NEW_TOKENS)
    int8 = settings.model_copy(update={"compute_type": "int8"})
    print(f"parameters {sum(p.numel() for p in model.parameters()):,}, best of {REPEATS}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        engines = {
            "hf": hf.Engine(folder, settings),
            "ct2 float32": ct2.Engine(folder, settings, Path(scratch), 1),
            "ct2 int8": ct2.Engine(folder, int8, Path(scratch), 1),
        }
        for count, samples in SHAPES:
            prompts = [encode_prompt(tokenizer, p.prompt) for p in problems[:count]]
            compare(folder, engines, prompts, samples)
    large([encode_prompt(tokenizer, p.prompt) for p in problems[:4]], tokenizer)


def coder_shape(tokenizer: Any) -> Qwen2ForCausalLM:
    """A model of the shape of Qwen2.5-Coder-0.5B with random weights."""
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=151_936, hidden_size=896, intermediate_size=4864, num_hidden_layers=24,
            num_attention_heads=14, num_key_value_heads=2, tie_word_embeddings=True,
            bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
        )
    )  # fmt: skip


def large(prompts: list[list[int]], tokenizer: Any) -> None:
    """Measure and print the engines at the shape of a real model; LARGE_SAMPLES samples of LARGE_TOKENS tokens a prompt."""
    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    model = coder_shape(tokenizer)
    model.model.norm.weight.data.mul_(PEAK)
    print(f"parameters {sum(p.numel() for p in model.parameters()):,}, {threads} threads")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        del model
        engines: dict[str, Callable[[SampleConfig], Any]] = {
            "hf": lambda settings: hf.Engine(folder, settings),
            "hf bfloat16": lambda settings: hf.Engine(
                folder, settings.model_copy(update={"engine": "hf", "compute_type": "bfloat16"})
            ),
            "ct2": lambda settings: ct2.Engine(folder, settings, Path(scratch), threads),
        }
        for name, start in engines.items():
            for changes in ({}, {"top_k": 50}, {"top_p": 0.95}, {"top_k": 50, "top_p": 0.95}):
                settings = SampleConfig(max_new_tokens=LARGE_TOKENS, **changes)
                engine = start(settings)
                started = time.perf_counter()
                drawn = engine.sample(prompts, LARGE_SAMPLES, 1)
                seconds = time.perf_counter() - started
                count = sum(len(one.token_ids) for row in drawn for one in row)
                print(f"  {name:<11} {changes or 'all'!s:<30} {count / seconds:>8.1f} tokens/s", flush=True)
                del engine


def compare(folder: Path, engines: dict[str, Any], prompts: list[list[int]], samples: int) -> None:
    """Measure and print one shape; turns are taken, so that what else the machine does hits all alike."""

    def tokens(engine: Any, seed: int) -> int:
        return sum(len(one.token_ids) for row in engine.sample(prompts, samples, seed) for one in row)

    calls = {"generate": _generate(folder, prompts, samples)}
    calls |= {name: partial(tokens, engine) for name, engine in engines.items()}
    best = dict.fromkeys(calls, 0.0)
    for seed in range(REPEATS):
        for name, call in calls.items():
            started = time.perf_counter()
            count = call(seed)
            best[name] = max(best[name], count / (time.perf_counter() - started))
    print(f"{len(prompts)} prompts x {samples}")
    for name, rate in best.items():
        print(f"  {name:<12} {rate:>8.0f} tokens/s  {rate / best['generate']:.2f} x generate")


def _generate(folder: Path, prompts: list[list[int]], samples: int) -> Callable[[int], int]:
    model, tokenizer = load_generator(folder).eval(), load_tokenizer(folder)
    ids = pad(prompts, tokenizer.pad_token_id, left=True)
    mask = pad([[1] * len(prompt) for prompt in prompts], 0, left=True)

    def sample(seed: int) -> int:
        torch.manual_seed(seed)
        with torch.inference_mode():
            out = model.generate(
                input_ids=ids, attention_mask=mask, do_sample=True, top_k=0, max_new_tokens=NEW_TOKENS,
                pad_token_id=tokenizer.pad_token_id, num_return_sequences=samples,
            )  # fmt: skip
        return int((out[:, ids.shape[1] :] != tokenizer.pad_token_id).sum())

    return sample
