"""Task `train_reward`: a reranker."""

from selftrain.stage import ArtifactRef
from selftrain.stages.train_reward import TRAIN_REWARD, RewardSlice
from tasks.run import Run


def train_reward(run: Run, generator: ArtifactRef, pairs: ArtifactRef, round: int) -> ArtifactRef:
    """Stages B and E: train the reranker of `round` on its pairs, started from the SFT generator."""
    piece = RewardSlice(seed=run.config.seed, reward=run.config.reward)
    inputs = {"generator": generator, "pairs": pairs}
    return run.do(
        TRAIN_REWARD, f"rm-{round}", piece, inputs, f"train_reward · round {round}", tags=("training",)
    )
