"""Child process of stage `sample`: each rank samples every world-th shard and writes it as a file of its own."""

import os
from collections.abc import Sequence
from typing import Any

from selftrain.config import RuntimeConfig
from selftrain.launch import Child, child_main, report_progress
from selftrain.models import encode_prompt, load_tokenizer
from selftrain.records import Candidate, Problem, read_records, write_records
from selftrain.sampling import Sample
from selftrain.stage import Outcome
from selftrain.stages.sample import SampleSlice, shard_path, shards


def sample(child: Child) -> Outcome:
    """Sample the shards that are wanted and not there yet."""
    config = SampleSlice.model_validate(child.config)
    runtime = RuntimeConfig.model_validate(child.runtime)
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    problems = read_records(child.inputs["problems"] / "problems.parquet", Problem)
    numbered = list(enumerate(shards(problems, config)))
    if (only := child.extra.get("only")) is not None:
        numbered = [(at, rows) for at, rows in numbered if shard_path(child.private, at).name in only]
    # By the shard's number: what is there already may change while the ranks start, one after the other.
    mine = [(at, rows) for at, rows in numbered[rank::world] if not shard_path(child.private, at).is_file()]
    if not mine and rank > 0:  # rank 0 makes its engine all the same: it converts the model for the others
        return Outcome("")
    tokenizer = load_tokenizer(child.inputs["generator"])
    engine = _engine(config, runtime, child, rank)
    for done, (at, rows) in enumerate(mine):
        prompts = [encode_prompt(tokenizer, problem.prompt) for problem in rows]
        seed = (config.seed * 1_000_003 + at) % 2**31
        names = [f"{config.seed}/{problem.id}" for problem in rows]
        drawn = engine.sample(prompts, config.count, seed, names)
        greedy = engine.sample(prompts, 0, seed) if config.greedy else [[] for _ in rows]
        records = [
            candidate(tokenizer, problem, k, one)
            for problem, many, best in zip(rows, drawn, greedy, strict=True)
            for k, one in [*enumerate(many), *((-1, one) for one in best)]
        ]
        part = shard_path(child.private, at).with_suffix(f".{rank}.part")
        write_records(part, records, Candidate)
        part.rename(shard_path(child.private, at))
        report_progress(
            (done + 1) * world,
            len(mine) * world,
            "shards",
            tokens=float(sum(len(r.token_ids) for r in records)),
        )
    return Outcome("")


def candidate(tokenizer: Any, problem: Problem, number: int, drawn: Sample) -> Candidate:
    """The record of one sample: its text cut at the problem's first stop token."""
    text = tokenizer.decode(drawn.token_ids, skip_special_tokens=True)
    completion = problem.cut(text)
    ended = drawn.ended or completion != text
    return Candidate(
        id=f"{problem.id}#{number}",
        problem_id=problem.id,
        sample=number,
        completion=completion,
        token_ids=tuple(drawn.token_ids),
        logprob=drawn.logprob,
        finish_reason="stop" if ended else "length",
    )


def _engine(config: SampleSlice, runtime: RuntimeConfig, child: Child, rank: int) -> Any:
    folder = child.inputs["generator"]
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
    """See no GPUs but this process's share of those of the machine from now on."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    visible = named.split(",") if named else [str(at) for at in range(torch.cuda.device_count())]
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(own_devices(visible, rank, world))


def own_devices(visible: Sequence[str], rank: int, world: int) -> Sequence[str]:
    """The GPUs of process `rank` of `world` among `visible`: an equal share, or one that others use too."""
    share = max(1, len(visible) // world)
    start = rank * share % max(1, len(visible))
    return visible[start : start + share]


if __name__ == "__main__":
    child_main(sample, apart=True)
