"""Benchmark: CPU seconds to score 16 candidates per problem, `Reranker.score_many` against plain transformers.

`score_many` reads each prompt once. The baseline `padded` runs a sequence classifier on batches padded on the right, with the
whole prompt before each candidate; a batch has 16 rows, one problem's rows, or 4 rows. Both include tokenisation and run on one
thread. Candidates are programs for other problems in the same language. Such candidates share shorter beginnings than samples
for one problem, which would favour `score_many`.

There are two shapes: the demo's reranker on the bank's short prompts, and a model of 28 M parameters on prompts of 150 to 300
tokens with completions of 60 to 120 tokens, as MultiPL-E has them.
"""

import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

from selftrain.config import BankConfig
from selftrain.models.models import encode_completion, encode_prompt, train_tokenizer
from selftrain.problems.read import read_problems
from selftrain.rerank.reranker import Reranker

CANDIDATES, SIZES = 16, (16, 4)
Problems = list[tuple[str, list[str]]]


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rng = random.Random(0)
    sizes = {"sft": 400, "rl": 1, "validation": 1, "test": 1}
    bank = [
        p for p in read_problems(BankConfig(sizes=sizes, families=["list"], lengths=[1, 2])) if p.response
    ]
    prompts, responses = [p.prompt for p in bank], [p.response for p in bank if p.response]
    tokenizer = train_tokenizer([*prompts, *responses], 1024)
    tiny = _model(tokenizer, hidden_size=128, layers=3, heads=4, key_value_heads=4)
    short = [
        (
            p.prompt,
            [q.response or "" for q in rng.sample([q for q in bank if q.language == p.language], CANDIDATES)],
        )
        for p in bank[:40]
    ]
    compare("demo", tiny, tokenizer, short, repeats=10)
    larger = _model(tokenizer, hidden_size=384, layers=16, heads=6, key_value_heads=2)
    written = partial(_written, tokenizer, rng)
    problems = [
        (written(prompts, 150, 300), [written(responses, 60, 120) for _ in range(CANDIDATES)])
        for _ in range(2)
    ]
    compare("28 M", larger, tokenizer, problems, repeats=3)


def compare(name: str, model: Any, tokenizer: Any, problems: Problems, repeats: int) -> None:
    """Measure and print one shape; turns are taken, so that what else the machine does hits all alike."""
    reranker = Reranker(model, tokenizer)
    calls: dict[str, Callable[[], list[float]]] = {
        f"padded, {size} rows": partial(_padded, model, tokenizer, problems, size) for size in SIZES
    }
    calls["score_many"] = lambda: list(chain.from_iterable(reranker.score_many(problems, exact=True)))
    best = dict.fromkeys(calls, float("inf"))
    scores: dict[str, list[float]] = {}
    for _ in range(repeats):
        for call, score in calls.items():
            started = time.process_time()
            scores[call] = score()
            best[call] = min(best[call], time.process_time() - started)
    plain = scores[f"padded, {SIZES[0]} rows"]
    apart = max(abs(a - b) for a, b in zip(plain, scores["score_many"], strict=True))
    assert apart < 1e-5, f"scores differ by {apart}"
    heads = [len(encode_prompt(tokenizer, prompt)) for prompt, _ in problems]
    tails = [len(encode_completion(tokenizer, text)) for _, texts in problems for text in texts]
    print(
        f"{name}: {sum(p.numel() for p in model.parameters()):,} parameters, {len(problems)} problems x {CANDIDATES}, "
        f"prompts of {sum(heads) / len(heads):.0f} tokens, completions of {sum(tails) / len(tails):.0f}, best of {repeats}"
    )
    for call, seconds in best.items():
        print(f"  {call:<16} {seconds:>7.3f} s  {seconds / best['score_many']:.2f} x score_many")


def _padded(model: Any, tokenizer: Any, problems: Problems, size: int) -> list[float]:
    """Plain transformers, `size` rows at once."""
    texts = [
        f"{prompt}{tokenizer.sep_token}{text}{tokenizer.eos_token}"
        for prompt, candidates in problems
        for text in candidates
    ]
    scores: list[float] = []
    with torch.inference_mode():
        for at in range(0, len(texts), size):
            batch = tokenizer(texts[at : at + size], padding=True, return_tensors="pt")
            out = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)
            scores += out.logits[:, 0].tolist()
    return scores


def _written(tokenizer: Any, rng: random.Random, texts: Sequence[str], shortest: int, longest: int) -> str:
    """Some of `texts` one after another, about as many tokens as said."""
    wanted, out = rng.randint(shortest, longest), ""
    while len(tokenizer(out)["input_ids"]) < wanted:
        out += rng.choice(texts)
    return out


def _model(tokenizer: Any, hidden_size: int, layers: int, heads: int, key_value_heads: int) -> Any:
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=3 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_value_heads,
        max_position_embeddings=2048,
        num_labels=1,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    return LlamaForSequenceClassification(config).eval()
