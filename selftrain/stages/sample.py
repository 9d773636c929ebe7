"""Stage `sample`: samples a generator's candidates for the problems of some splits. The work is in `selftrain.sampling`."""

from pathlib import Path

from selftrain.config import SampleConfig, Strict
from selftrain.errors import DataError
from selftrain.launch.launch import launch
from selftrain.records import Candidate, Problem, digest, read_records, write_records
from selftrain.stage import Context, Outcome, Stage
from selftrain.store.store import PROGRESS


class SampleSlice(Strict):
    """What a pool of candidates depends on besides the problems and the generator.

    count   candidates per problem
    greedy  whether the greedy completion is added, as sample -1
    """

    seed: int
    sample: SampleConfig
    splits: tuple[str, ...]
    count: int
    greedy: bool


def shards(problems: list[Problem], config: SampleSlice) -> list[list[Problem]]:
    """The problems of the slice's splits, in groups of `sample.shard`."""
    chosen = [problem for problem in problems if problem.split in config.splits]
    size = config.sample.shard
    return [chosen[at : at + size] for at in range(0, len(chosen), size)]


def shard_path(folder: Path, number: int) -> Path:
    """The file in `folder` that stores shard `number` until all shards are finished and merged."""
    return folder / f"shard-{number:05d}.parquet"


def shard_names(context: Context) -> list[str]:
    """The names of all shards' files."""
    groups = shards(read_records(context.inputs["problems"] / "problems.parquet", Problem), context.config)
    return [shard_path(context.folder, at).name for at in range(len(groups))]


def run(context: Context) -> Outcome:
    """Reads `problems` and `generator`; writes candidates.parquet."""
    config: SampleSlice = context.config
    groups = shards(read_records(context.inputs["problems"] / "problems.parquet", Problem), config)
    if not groups:
        raise DataError(f"no problem in splits {', '.join(config.splits)}; there is nothing to sample")
    folder = context.folder / PROGRESS
    paths = [shard_path(folder, at) for at in range(len(groups))]
    if not all(path.is_file() for path in paths if context.wants(path.name)):
        launch("selftrain.sampling.run", context, extra={"only": context.only})
    if context.only is not None:
        return Outcome("")
    candidates = [c for path in paths for c in read_records(path, Candidate)]
    sampled = {c.problem_id for c in candidates}
    left_out = [problem for group in groups for problem in group if problem.id not in sampled]
    if not candidates:
        raise DataError(
            f"none of the {len(left_out)} problems has a prompt that fits: a prompt needs 1 token at least, and room for "
            f"sample.max_new_tokens={config.sample.max_new_tokens} more in the generator's longest input; lower that, or take "
            "a model with a longer one"
        )
    if left_out:
        context.log(
            f"WARNING: {len(left_out)} of {sum(map(len, groups))} prompts leave no room for sample.max_new_tokens="
            f"{config.sample.max_new_tokens} in the generator's longest input: nothing is sampled for {left_out[0].id} ..."
        )
    write_records(context.folder / "candidates.parquet", candidates, Candidate)
    drawn = [c for c in candidates if c.sample >= 0]
    metrics = {
        "problems": len(sampled),
        "too_long": len(left_out),
        "candidates": len(drawn),
        "tokens": sum(c.sampled for c in drawn),
        "tokens_kept": sum(len(c.token_ids) for c in drawn),
        "ended": sum(c.finish_reason == "stop" for c in drawn) / len(drawn),
    }
    return Outcome(digest(candidates), metrics)


SAMPLE = Stage("sample", 4, run, shard_names)
