"""Stage `sample`: samples a generator's candidates for the problems of some splits. The work is in `selftrain.sampling`."""

from collections import Counter
from pathlib import Path

from selftrain.config import SampleConfig, Strict
from selftrain.errors import DataError
from selftrain.launch.launch import launch
from selftrain.records import Candidate, Problem, Writer, iter_records, read_records
from selftrain.stage import Context, Outcome, Stage
from selftrain.store.store import PROGRESS
from selftrain.units import none_of


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
    totals: Counter[str] = Counter()
    sampled: set[str] = set()
    with Writer(context.folder / "candidates.parquet", Candidate) as writer:
        for rows in (rows for path in paths for rows in iter_records(path, Candidate)):
            writer.add(rows)
            sampled |= {row.problem_id for row in rows}
            drawn = [row for row in rows if row.sample >= 0]
            totals["candidates"] += len(drawn)
            totals["tokens"] += sum(row.sampled for row in drawn)
            totals["tokens_kept"] += sum(len(row.token_ids) for row in drawn)
            totals["ended"] += sum(row.finish_reason == "stop" for row in drawn)
    _check_fits(context, [problem for group in groups for problem in group], sampled)
    metrics = {
        "problems": len(sampled),
        "too_long": sum(map(len, groups)) - len(sampled),
        **{name: totals[name] for name in ("candidates", "tokens", "tokens_kept")},
        "ended": totals["ended"] / totals["candidates"],
    }
    return Outcome(writer.digest, metrics)


def _check_fits(context: Context, problems: list[Problem], sampled: set[str]) -> None:
    """Log how many of `problems` were left out as too long. Raises DataError if all of them were."""
    left_out = [problem for problem in problems if problem.id not in sampled]
    most = context.config.sample.max_new_tokens
    if not sampled:
        raise DataError(
            f"{none_of(len(left_out), 'problem')} has a prompt that fits: a prompt needs 1 token at least, and room for "
            f"sample.max_new_tokens={most} more in the generator's longest input; lower that, or take "
            "a model with a longer one"
        )
    if left_out:
        context.log(
            f"WARNING: {len(left_out)} of {len(problems)} prompts leave no room for sample.max_new_tokens="
            f"{most} in the generator's longest input: nothing is sampled for {left_out[0].id} ..."
        )


SAMPLE = Stage("sample", 4, run, shard_names)
