"""Task `train_reward`: a reranker."""

from selftrain.stage import ArtifactRef
from selftrain.stages.train_reward import TRAIN_REWARD, RewardSlice
from tasks.run import Run


def train_reward(
    run: Run, generator: ArtifactRef, pairs: ArtifactRef, round: int, before: ArtifactRef | None
) -> ArtifactRef:
    """Stages B and E: the reranker of `round`, from the SFT generator, or from the reranker of the round `before`."""
    settings = run.config.reward
    start = before if settings.later_epochs is not None and before is not None else generator
    piece = RewardSlice(seed=run.config.seed, reward=settings, continues=start is not generator)
    inputs = {"start": start, "pairs": pairs}
    return run.do(
        TRAIN_REWARD, f"rm-{round}", piece, inputs, f"train_reward · round {round}", tags=("training",)
    )
