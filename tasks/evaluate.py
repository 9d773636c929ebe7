"""Task `evaluate`: ranks every pool of candidates with every reranker and computes the metrics."""

from collections.abc import Mapping

from selftrain.stage import ArtifactRef
from selftrain.stages.evaluate import EVALUATE, EvaluateSlice
from tasks.run import Run

Pools = Mapping[str, tuple[ArtifactRef, ArtifactRef]]
"""Name of a pool -> its candidates and its executions."""


def pool_inputs(problems: ArtifactRef, pools: Pools) -> dict[str, ArtifactRef]:
    """The input artifacts, under the names that `selftrain.evaluation.pools.load_pool` reads."""
    inputs = {"problems": problems}
    for name, (candidates, executions) in pools.items():
        inputs |= {f"{name}.candidates": candidates, f"{name}.executions": executions}
    return inputs


def evaluate(
    run: Run, problems: ArtifactRef, pools: Pools, rerankers: Mapping[str, ArtifactRef]
) -> ArtifactRef:
    """Evaluate `rerankers` (name -> model) on `pools`, whose candidates are for the validation and test splits."""
    config_slice = EvaluateSlice(
        seed=run.config.seed, evaluate=run.config.evaluate, pools=tuple(pools), rerankers=tuple(rerankers)
    )
    return run.do(EVALUATE, "evaluate", config_slice, {**pool_inputs(problems, pools), **rerankers})
