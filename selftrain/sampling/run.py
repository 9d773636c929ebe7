"""Child process of stage `sample`: each rank samples its share of the shards and writes one file per shard."""

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from selftrain.launch import ranks
from selftrain.launch.launch import Child, child_main, report_progress
from selftrain.models.models import (
    decode_completion,
    encode_completion,
    fits,
    load_context,
    load_tokenizer,
)
from selftrain.models.prompts import encode_problem, style_of
from selftrain.problems.chat import completion_of
from selftrain.records import Candidate, Problem, read_records, write_records
from selftrain.sampling import Sample
from selftrain.stage import Outcome
from selftrain.stages.sample import SampleSlice, shard_path, shards


def sample(child: Child) -> Outcome:
    """Sample this rank's share of the requested shards, except the finished ones."""
    config = SampleSlice.model_validate(child.config)
    rank, world = ranks.rank(), ranks.world_size()
    problems = read_records(child.inputs["problems"] / "problems.parquet", Problem)
    numbered = list(enumerate(shards(problems, config)))
    if (only := child.extra.get("only")) is not None:
        numbered = [(at, rows) for at, rows in numbered if shard_path(child.private, at).name in only]
    # Deal out the shards first and skip finished ones then: ranks start at different times and may see different files.
    mine = [(at, rows) for at, rows in numbered[rank::world] if not shard_path(child.private, at).is_file()]
    # Rank 0 continues without shards too: it converts the model for the other ranks.
    if not mine and rank > 0:
        return Outcome("")
    tokenizer = load_tokenizer(child.inputs["generator"])
    longest = load_context(child.inputs["generator"])
    engine = _engine(config, child, rank)
    for done, (at, rows) in enumerate(mine):
        encoded = [(problem, encode_problem(tokenizer, problem.prompt, problem.language)) for problem in rows]
        kept = [one for one in encoded if fits(len(one[1]), longest, config.sample.max_new_tokens)]
        records = _sampled(engine, tokenizer, config, at, kept) if kept else []
        part = shard_path(child.private, at).with_suffix(f".{rank}.part")
        write_records(part, records, Candidate)
        part.rename(shard_path(child.private, at))
        tokens = float(sum(len(record.token_ids) for record in records))
        report_progress((done + 1) * world, len(mine) * world, "shards", tokens=tokens)
    return Outcome("")


def _sampled(
    engine: Any, tokenizer: Any, config: SampleSlice, shard: int, rows: Sequence[tuple[Problem, list[int]]]
) -> list[Candidate]:
    """Sample the candidates of one shard; `rows`: its problems, each with its prompt's token ids."""
    prompts = [prompt for _, prompt in rows]
    seed = (config.seed * 1_000_003 + shard) % 2**31
    names = [f"{config.seed}/{problem.id}" for problem, _ in rows]
    drawn = engine.sample(prompts, config.count, seed, names)
    greedy = engine.sample(prompts, 0, seed) if config.greedy else [[] for _ in rows]
    records = [
        (candidate(tokenizer, problem, k, one, engine.ends), prompt)
        for (problem, prompt), many, best in zip(rows, drawn, greedy, strict=True)
        for k, one in [*enumerate(many), *((-1, one) for one in best)]
    ]
    return with_logprobs(engine, records)


def candidate(tokenizer: Any, problem: Problem, number: int, drawn: Sample, ends: Sequence[int]) -> Candidate:
    """The record of one sample, with the completion in its text (`problems.chat.completion_of`).

    number  number of the sample; -1 for the greedy completion
    ends    ids of the tokens that end a completion

    If the text is cut at a stop token, the record has the token ids of the remaining text, and its log-probability is NaN until
    `with_logprobs` computes it. Of an answer in style `chat` the record has all token ids and their log-probability.
    """
    style = style_of(tokenizer)
    text = decode_completion(tokenizer, drawn.token_ids, ends)
    completion = completion_of(problem, text, style)
    ids, logprob = list(drawn.token_ids), drawn.logprob
    was_cut = style == "completion" and completion != text
    if was_cut:
        ids, logprob = kept_tokens(tokenizer, ids, completion), math.nan
    return Candidate(
        id=f"{problem.id}#{number}",
        problem_id=problem.id,
        sample=number,
        completion=completion,
        token_ids=tuple(ids),
        logprob=logprob,
        finish_reason="stop" if drawn.ended or was_cut else "length",
    )


def kept_tokens(tokenizer: Any, ids: Sequence[int], completion: str) -> list[int]:
    """Token ids of `completion`, which is a prefix of the text of `ids`.

    Keeps the longest prefix of `ids` whose text is inside `completion`. The remaining text, a part of the next token, is encoded
    again.
    """
    low, high = 0, len(ids)  # bisection works since more tokens give a longer text
    while low < high:
        middle = (low + high + 1) // 2
        inside = completion.startswith(decode_completion(tokenizer, ids[:middle]))
        low, high = (middle, high) if inside else (low, middle - 1)
    kept = list(ids[:low])
    rest = completion[len(decode_completion(tokenizer, kept)) :]
    return kept + (encode_completion(tokenizer, rest)[:-1] if rest else [])


def with_logprobs(engine: Any, records: Sequence[tuple[Candidate, list[int]]]) -> list[Candidate]:
    """Compute the log-probabilities that are NaN; `records`: candidates, each with its prompt's token ids."""
    cut = [at for at, (record, _) in enumerate(records) if math.isnan(record.logprob)]
    scored = [at for at in cut if records[at][0].token_ids]
    found = engine.logprobs([records[at][1] for at in scored], [records[at][0].token_ids for at in scored])
    logprobs = dict.fromkeys(cut, 0.0) | dict(zip(scored, found, strict=True))  # 0 for an empty completion
    return [
        replace(record, logprob=logprobs.get(at, record.logprob)) for at, (record, _) in enumerate(records)
    ]


def _engine(config: SampleSlice, child: Child, rank: int) -> Any:
    folder, runtime = child.inputs["generator"], child.runtime
    if config.sample.engine == "ctranslate2":
        from selftrain.sampling import ct2

        return ct2.Engine(folder, config.sample, child.private, runtime.threads, converts=rank == 0)
    if runtime.device == "cuda":
        take_devices(rank, runtime.processes)
    if config.sample.engine == "vllm":
        from selftrain.sampling import vllm

        return vllm.Engine(folder, config.sample)
    from selftrain.sampling import hf

    return hf.Engine(folder, config.sample, runtime.device)


def take_devices(rank: int, world: int) -> None:
    """Restrict this process to its share of the machine's GPUs (CUDA_VISIBLE_DEVICES)."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    visible = named.split(",") if named else [str(at) for at in range(torch.cuda.device_count())]
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(own_devices(visible, rank, world))


def own_devices(visible: Sequence[str], rank: int, world: int) -> Sequence[str]:
    """The GPUs for process `rank` of `world`: an equal share of `visible`, or one GPU shared with others if there are too few."""
    share = max(1, len(visible) // world)
    start = rank * share % max(1, len(visible))
    return visible[start : start + share]


if __name__ == "__main__":
    child_main(sample, apart=True)
