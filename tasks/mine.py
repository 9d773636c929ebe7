"""Task `mine`: collects pairs of a right and a wrong program for the next reranker."""

from selftrain.stage import ArtifactRef
from selftrain.stages.mine import MINE, MineSlice
from tasks.run import Run, with_defaults


def mine(
    run: Run,
    problems: ArtifactRef,
    pool: tuple[ArtifactRef, ArtifactRef],
    round: int,
    earlier: tuple[ArtifactRef, ArtifactRef] | None = None,
) -> ArtifactRef:
    """Mine the pairs of `round` from `pool` (candidates, executions). `earlier`: (pairs, reranker) of the previous round."""
    inputs = {"problems": problems, "candidates": pool[0], "executions": pool[1]}
    if earlier is not None:
        inputs |= {"pairs": earlier[0], "reranker": earlier[1]}
    settings = run.config.mine
    if earlier is None:  # round 1 has no scores, so settings of hard negatives cannot change its pairs
        settings = with_defaults(settings, "hard_share", "threshold", "passing")
    config_slice = MineSlice(seed=run.config.seed, round=round, mine=settings)
    return run.do(MINE, f"mine-{round}", config_slice, inputs, f"mine · round {round}")
