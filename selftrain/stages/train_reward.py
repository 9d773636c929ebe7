"""Stage `train_reward`: pairs -> reranker, started from the generator. The work is in `selftrain.training.reward`."""

from selftrain.config import RewardConfig, Strict
from selftrain.launch import launch
from selftrain.stage import Build, Outcome, Stage


class RewardSlice(Strict):
    """What the reranker depends on, beside the pairs and the generator it starts from."""

    seed: int
    reward: RewardConfig


def build(build: Build) -> Outcome:
    """Reads `pairs` and `generator`; writes a sequence classifier with one label, and its tokenizer."""
    return launch("selftrain.training.reward", build, distributed=True)


TRAIN_REWARD = Stage("train_reward", 1, build)
