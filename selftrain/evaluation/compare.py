"""`selftrain compare`: joins the test pools of several runs of one method, so that intervals cover all seeds.

The ranker that a run chose on its validation split may differ from run to run. Its scores also appear under the name `chosen`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from selftrain.errors import UsageError
from selftrain.evaluation.comparisons import Evaluation, evaluate_pools
from selftrain.evaluation.pools import SHUFFLED, Pool, PoolProblem, join_runs, load_pool, with_logprob
from selftrain.stage import ArtifactRef
from selftrain.store.runfile import find_run, read_run
from selftrain.store.store import Store

CHOSEN = "chosen"


def compare_runs(runs: Sequence[str | Path]) -> Evaluation:
    """Metrics and comparisons of the runs' joined pools; for a single run those of its report.

    Seed and number of resamples are those of the first run. Raises UsageError where a run is unfinished, where the runs have
    different pools or rankers, or where two runs share one evaluation, whose problems would count twice.
    """
    records = [_finished(find_run(run)) for run in runs]
    evaluations: dict[str, str | Path] = {}
    for run, record in zip(runs, records, strict=True):
        key = record["stages"]["evaluate"]["key"]
        if key in evaluations:
            raise UsageError(
                f"{evaluations[key]} and {run} are the same evaluation ({key}), whose problems would count twice; give each once"
            )
        evaluations[key] = run
    pools = [run_pools(record) for record in records]
    names = [{name: pool.rankers for name, pool in found.items()} for found in pools]
    if any(name != names[0] for name in names):
        given = "; ".join(f"{run}: {', '.join(found)}" for run, found in zip(runs, pools, strict=True))
        raise UsageError(f"the runs have different pools or rankers, expected the same method: {given}")
    config = records[0]["config"]
    joined = [join_runs([found[name] for found in pools]) for name in pools[0]]
    return evaluate_pools(joined, config["evaluate"]["bootstrap"], config["seed"])


def _finished(folder: Path) -> dict[str, Any]:
    record = read_run(folder)
    if not record["finished"]:
        raise UsageError(f"{folder}: this run is not finished; resume it with `selftrain run`")
    return record


def run_pools(record: Mapping[str, Any]) -> dict[str, Pool]:
    """Name -> test pool of a finished run, with all its rankers. `record`: content of the run's run.json."""
    store = Store(record["store"])
    folders = {
        name: store.path(ArtifactRef(ref["stage"], ref["key"]))
        for name, ref in record["stages"].items()
        if name in ("prepare", "evaluate") or name.endswith("-evaluation")
    }
    result = json.loads((folders["evaluate"] / "evaluation.json").read_text())
    scores = json.loads((folders["evaluate"] / "scores.json").read_text())
    found = {}
    for name, of_pool in scores.items():
        inputs = {
            "problems": folders["prepare"],
            f"{name}.candidates": folders[f"sample-{name}-evaluation"],
            f"{name}.executions": folders[f"execute-{name}-evaluation"],
        }
        pool = with_logprob(load_pool(inputs, name, "test", of_pool), result["logprob_weights"])
        found[name] = with_chosen(pool, result["chosen"])
    return found


def with_chosen(pool: Pool, ranker: str) -> Pool:
    """The pool with the scores of `ranker` and of its control also under the name `chosen`."""
    names = {ranker: CHOSEN, ranker + SHUFFLED: CHOSEN + SHUFFLED}

    def named(problem: PoolProblem) -> PoolProblem:
        scores = problem.scores
        more = {new: scores[old] for old, new in names.items() if old in scores}
        return replace(problem, scores={**scores, **more})

    return replace(pool, problems=tuple(map(named, pool.problems)))
