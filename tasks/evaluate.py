"""Task `evaluate`: every pool ranked by every reranker."""

from collections.abc import Mapping

from selftrain.stage import ArtifactRef
from selftrain.stages.evaluate import EVALUATE, EvaluateSlice
from tasks.run import Run

Pools = Mapping[str, tuple[ArtifactRef, ArtifactRef]]


def pool_inputs(problems: ArtifactRef, pools: Pools) -> dict[str, ArtifactRef]:
    """The inputs that `selftrain.evaluation.pools.load_pool` reads."""
    inputs = {"problems": problems}
    for name, (candidates, executions) in pools.items():
        inputs |= {f"{name}.candidates": candidates, f"{name}.executions": executions}
    return inputs


def evaluate(
    run: Run, problems: ArtifactRef, pools: Pools, rerankers: Mapping[str, ArtifactRef]
) -> ArtifactRef:
    """Metrics of `pools` (name -> candidates and executions on validation and test) under `rerankers` (name -> model)."""
    config_slice = EvaluateSlice(
        seed=run.config.seed, evaluate=run.config.evaluate, pools=tuple(pools), rerankers=tuple(rerankers)
    )
    return run.do(EVALUATE, "evaluate", config_slice, {**pool_inputs(problems, pools), **rerankers})
