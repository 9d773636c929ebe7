"""Task `train_reward`: trains the reranker of one round."""

from selftrain.config import ModelConfig
from selftrain.models.weights import base_digest
from selftrain.stage import ArtifactRef
from selftrain.stages.train_reward import TRAIN_REWARD, RewardSlice
from tasks.run import Run, with_defaults


def train_reward(
    run: Run, generator: ArtifactRef, pairs: ArtifactRef, round: int, before: ArtifactRef | None
) -> ArtifactRef:
    """Steps B and E: train the reranker of `round`.

    Training starts from `before`, the previous round's reranker, if `reward.later_epochs` is set; otherwise from `reward.base`,
    or from the SFT generator if that is null.
    """
    settings = run.config.reward
    start: ArtifactRef | None = generator if settings.base is None else None
    if settings.later_epochs is not None and before is not None:
        start = before
        later = {"epochs": settings.later_epochs, "learning_rate": settings.later_learning_rate}
        settings = settings.model_copy(update=later)
    settings = with_defaults(settings, "later_epochs", "later_learning_rate")
    base = ModelConfig(base=settings.base, revision=settings.base_revision)
    config_slice = RewardSlice(
        seed=run.config.seed,
        reward=settings,
        continues=start is before and before is not None,
        base_digest=base_digest(base, "reward.base") if start is None else None,
    )
    inputs = {"pairs": pairs} | ({"start": start} if start is not None else {})
    return run.do(TRAIN_REWARD, f"rm-{round}", config_slice, inputs, f"train_reward · round {round}")
