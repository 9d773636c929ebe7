"""Stage `train_reward`: pairs -> reranker. The work is in `selftrain.training.reward`."""

from selftrain.config import RewardConfig, Strict
from selftrain.launch.launch import launch
from selftrain.stage import Context, Outcome, Stage


class RewardSlice(Strict):
    """What the reranker depends on besides the pairs and the model it starts from.

    reward       the settings, with this round's own values in `epochs` and `learning_rate`
    continues    whether training starts from the previous round's reranker, not from the SFT generator or `reward.base`
    tiny         whether training starts from random weights or a generator that was never pretrained; its new score head is then
                 random
    base_digest  sha256 or hub commit of the pretrained weights of `reward.base`; None if training does not start from them
    """

    seed: int
    reward: RewardConfig
    continues: bool = False
    tiny: bool = False
    base_digest: str | None = None


def run(context: Context) -> Outcome:
    """Reads `pairs` and, unless it starts from `reward.base`, `start`; writes a one-label classifier and its tokenizer."""
    return launch("selftrain.training.reward", context, distributed=True)


TRAIN_REWARD = Stage("train_reward", 4, run, trains=True)
