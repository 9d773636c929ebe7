"""`selftrain compare`: joins the pools of several runs of one method, so that intervals cover all seeds, or compares methods.

Runs are of one method if their configs differ in nothing but the seed, the name and where they run. The ranker that a run chose
on its validation split may differ from run to run. Its scores also appear under the name `chosen`.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from selftrain.cache_key import fingerprint
from selftrain.config import RunConfig
from selftrain.errors import UsageError
from selftrain.evaluation.comparisons import Evaluation, evaluate_pools
from selftrain.evaluation.pools import SHUFFLED, Pool, join_runs, load_pool, with_agreement, with_logprob
from selftrain.evaluation.scores import read_scores
from selftrain.evaluation.study import CHOSEN, Table, renamed, study_table, with_roles
from selftrain.stage import ArtifactRef
from selftrain.store.runfile import find_run, read_run
from selftrain.store.store import Store

Record = Mapping[str, Any]
"""Content of a run's run.json."""


def compare_runs(runs: Sequence[str | Path]) -> Evaluation | Table:
    """Metrics and comparisons of the runs' joined pools, for a single run those of its report; of several methods a `Table`.

    The baseline of a table is the method of the first run. Seed and number of resamples are those of the first run. Raises
    UsageError where a run is unfinished, where two runs share one evaluation, whose problems would count twice, or where two
    runs of several methods have one method and one seed.
    """
    records = [finished_run(find_run(run)) for run in runs]
    evaluations: dict[str, str | Path] = {}
    for run, record in zip(runs, records, strict=True):
        key = record["stages"]["evaluate"]["key"]
        if key in evaluations:
            raise UsageError(
                f"{evaluations[key]} and {run} are the same evaluation ({key}), whose problems would count twice; give each once"
            )
        evaluations[key] = run
    config = records[0]["config"]
    methods = [method_of(record) for record in records]
    if len(set(methods)) > 1:
        return _compare_methods(runs, records, methods)
    pools = [run_pools(record) for record in records]
    joined = [join_runs([found[name] for found in pools]) for name in pools[0]]
    return evaluate_pools(joined, config["evaluate"]["bootstrap"], config["seed"])


def method_of(record: Record) -> str:
    """A digest of what determines a run's method: its config without seed, name, store, `runtime` and `promotion`."""
    config = record["config"]
    with suppress(ValidationError):  # settings that are newer than the run get their defaults
        config = RunConfig.model_validate(config).model_dump(mode="json")
    outside = ("seed", "name", "store", "store_block", "runtime", "promotion")
    return fingerprint({name: value for name, value in config.items() if name not in outside})


def _compare_methods(runs: Sequence[str | Path], records: Sequence[Record], methods: Sequence[str]) -> Table:
    """The table of several methods; each has the name of its first run."""
    names: dict[str, str] = {}
    variants: dict[str, dict[int, dict[str, Pool]]] = {}
    for run, record, method in zip(runs, records, methods, strict=True):
        name, seed = names.setdefault(method, str(run)), record["config"]["seed"]
        if seed in variants.setdefault(name, {}):
            raise UsageError(
                f"{name} and {run} are two runs of one method with seed {seed}; give one of them"
            )
        variants[name][seed] = study_pools(record, "test")
    config = records[0]["config"]
    pools = list(
        dict.fromkeys(pool for variant in variants.values() for by in variant.values() for pool in by)
    )
    resamples = config["evaluate"]["bootstrap"]
    return study_table(variants, next(iter(variants)), "test", pools, resamples, config["seed"])


def finished_run(folder: Path) -> dict[str, Any]:
    """The content of a finished run's run.json. Raises UsageError if the run is not finished."""
    record = read_run(folder)
    if not record["finished"]:
        raise UsageError(f"{folder}: this run is not finished; resume it with `selftrain run`")
    return record


def run_pools(record: Record) -> dict[str, Pool]:
    """Name -> test pool of a finished run, with all its rankers and `chosen`."""
    pools, chosen = _pools(record, "test")
    names = {chosen: CHOSEN, chosen + SHUFFLED: CHOSEN + SHUFFLED}
    return {name: renamed(pool, names) for name, pool in pools.items()}


def study_pools(record: Record, split: str) -> dict[str, Pool]:
    """Name -> pool of a finished run on `split` (validation or test), with all its rankers and their roles (`with_roles`)."""
    pools, chosen = _pools(record, split)
    return {name: with_roles(pool, chosen) for name, pool in pools.items()}


def is_read(step: str) -> bool:
    """Whether the pools of a run are read from the artifact of the step of this name."""
    return step in ("prepare", "evaluate") or step.endswith("-evaluation")


def _pools(record: Record, split: str) -> tuple[dict[str, Pool], str]:
    """Name -> pool of a finished run, and the ranker that the run chose. Controls are on the test split only."""
    store = Store(record["store"])
    folders = {
        name: store.path(ArtifactRef(ref["stage"], ref["key"]))
        for name, ref in record["stages"].items()
        if is_read(name)
    }
    result = json.loads((folders["evaluate"] / "evaluation.json").read_text())
    found = {}
    for name in result["evaluation"]["pools"]:
        of_pool = read_scores(folders["evaluate"], name)
        inputs = {
            "problems": folders["prepare"],
            f"{name}.candidates": folders[f"sample-{name}-evaluation"],
            f"{name}.executions": folders[f"execute-{name}-evaluation"],
        }
        if split != "test":
            of_pool = {ranker: values for ranker, values in of_pool.items() if not ranker.endswith(SHUFFLED)}
        pool = with_logprob(load_pool(inputs, name, split, of_pool), result["logprob_weights"])
        found[name] = with_agreement(pool)
    return found, result["chosen"]
