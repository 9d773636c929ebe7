"""Task `train_reward`: a reranker."""

from selftrain.stage import ArtifactRef
from selftrain.stages.train_reward import TRAIN_REWARD, RewardSlice
from tasks.run import Run, with_defaults


def train_reward(
    run: Run, generator: ArtifactRef, pairs: ArtifactRef, round: int, before: ArtifactRef | None
) -> ArtifactRef:
    """Stages B and E: the reranker of `round`, from the SFT generator, or from the reranker of the round `before`."""
    settings = run.config.reward
    start = generator
    if settings.later_epochs is not None and before is not None:
        start = before
        later = {"epochs": settings.later_epochs, "learning_rate": settings.later_learning_rate}
        settings = settings.model_copy(update=later)
    settings = with_defaults(settings, "later_epochs", "later_learning_rate")
    piece = RewardSlice(seed=run.config.seed, reward=settings, continues=start is not generator)
    inputs = {"start": start, "pairs": pairs}
    return run.do(
        TRAIN_REWARD, f"rm-{round}", piece, inputs, f"train_reward · round {round}", tags=("training",)
    )
