"""Child process of stage `sample`: each rank samples its share of the shards and writes one file per shard."""

import os
from collections.abc import Sequence
from typing import Any

from selftrain.launch import ranks
from selftrain.launch.launch import Child, child_main, report_progress
from selftrain.models.context import fits
from selftrain.models.models import load_context, load_tokenizer
from selftrain.models.prompts import encode_problem, style_of
from selftrain.problems.chat import completion_of
from selftrain.records import Candidate, Problem, read_records, write_records
from selftrain.sampling import Sample
from selftrain.sampling.stopping import Stopping, stop_texts
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
    stops = [stop_texts(tokenizer, problem) for problem, _ in rows]
    drawn = engine.sample(prompts, config.count, seed, names, stops)
    greedy = engine.sample(prompts, 0, seed, names, stops) if config.greedy else [[] for _ in rows]
    stopping = Stopping(tokenizer, engine.ends)
    return [
        candidate(stopping, problem, k, one)
        for (problem, _), many, best in zip(rows, drawn, greedy, strict=True)
        for k, one in [*enumerate(many), *((-1, one) for one in best)]
    ]


def candidate(stopping: Stopping, problem: Problem, number: int, drawn: Sample) -> Candidate:
    """The record of one sample, with the completion in its text (`problems.chat.completion_of`).

    number  number of the sample; -1 for the greedy completion
    """
    style = style_of(stopping.tokenizer)
    ending = stopping.ending(drawn.token_ids, stop_texts(stopping.tokenizer, problem))
    return Candidate(
        id=f"{problem.id}#{number}",
        problem_id=problem.id,
        sample=number,
        completion=completion_of(problem, ending.text, style),
        token_ids=tuple(drawn.token_ids[: ending.kept]),
        logprob=float(sum(drawn.logprobs[: ending.kept])),
        # A server may leave out the tokens that ended the completion.
        finish_reason="stop" if drawn.ended or ending.reason != "length" else "length",
        sampled=len(drawn.token_ids),
    )


def _engine(config: SampleSlice, child: Child, rank: int) -> Any:
    folder, runtime = child.inputs["generator"], child.runtime
    if config.sample.engine == "ctranslate2":
        from selftrain.sampling import ct2

        return ct2.Engine(folder, config.sample, child.private, runtime.threads, converts=rank == 0)
    if config.sample.engine == "openai":
        from selftrain.sampling import served

        return served.Engine(folder, config.sample)
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
