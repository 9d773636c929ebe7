"""Stage `train_reward`: pairs -> reranker. The work is in `selftrain.training.reward`."""

from selftrain.config import RewardConfig, Strict
from selftrain.launch.launch import launch
from selftrain.stage import Context, Outcome, Stage


class RewardSlice(Strict):
    """What the reranker depends on, beside the pairs and the model it starts from.

    reward     with the passes and the learning rate of this round in `epochs` and `learning_rate`
    continues  it starts from the reranker of the round before, else from the SFT generator with a fresh score head
    base_digest  content of the pretrained weights of `reward.base`, where it starts from those
    """

    seed: int
    reward: RewardConfig
    continues: bool = False
    base_digest: str | None = None


def run(context: Context) -> Outcome:
    """Reads `pairs` and, unless it starts from `reward.base`, `start`; writes a one-label classifier and its tokenizer."""
    return launch("selftrain.training.reward", context, distributed=True)


TRAIN_REWARD = Stage("train_reward", 2, run, trains=True)
