"""Several runs of one method, at different seeds, as one: their test pools joined, so that intervals cover all of them.

Used by `selftrain compare`. The ranker that each run chose on its validation split is also shown as `chosen`: it need not
be the same in every run.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from selftrain.comparisons import Evaluation, evaluate_pools
from selftrain.errors import UsageError
from selftrain.pools import SHUFFLED, Pool, join_runs, with_logprob
from selftrain.runfile import find_run, read_run
from selftrain.stage import ArtifactRef
from selftrain.stages.evaluate import load_pool
from selftrain.store import Store

CHOSEN = "chosen"


def compare_runs(runs: Sequence[str | Path]) -> Evaluation:
    """Metrics and comparisons of the runs' joined pools. Raises UsageError where runs are unfinished or do not match."""
    pools = [run_pools(find_run(run)) for run in runs]
    names = [{name: pool.rankers for name, pool in found.items()} for found in pools]
    if any(name != names[0] for name in names):
        given = "; ".join(f"{run}: {', '.join(found)}" for run, found in zip(runs, pools, strict=True))
        raise UsageError(f"the runs have different pools or rankers, expected the same method: {given}")
    return evaluate_pools([join_runs([found[name] for found in pools]) for name in pools[0]])


def run_pools(folder: Path) -> dict[str, Pool]:
    """The test pools of a finished run, by name, with all its rankers."""
    record = read_run(folder)
    if not record["finished"]:
        raise UsageError(f"{folder}: this run is not finished; go on with `selftrain run`")
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
    """The pool with the scores of `ranker`, and of its control, under the name `chosen` too."""
    names = {ranker: CHOSEN, ranker + SHUFFLED: CHOSEN + SHUFFLED}
    return replace(
        pool,
        problems=tuple(
            replace(
                problem,
                scores={
                    **problem.scores,
                    **{new: problem.scores[old] for old, new in names.items() if old in problem.scores},
                },
            )
            for problem in pool.problems
        ),
    )
