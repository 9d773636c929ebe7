"""Stage `ppo`: SFT policy + reranker -> trained policy. The work is in `selftrain.training.ppo`."""

from selftrain.config import PPOConfig, Strict
from selftrain.launch import launch
from selftrain.stage import Build, Outcome, Stage


class PPOSlice(Strict):
    """What the trained policy depends on, beside the problems, the SFT policy and the reranker."""

    seed: int
    ppo: PPOConfig
    max_new_tokens: int


def build(build: Build) -> Outcome:
    """Reads `problems`, `generator` and `reranker`; writes a causal language model, its tokenizer and `samples.json`."""
    return launch("selftrain.training.ppo", build, distributed=True)


PPO = Stage("ppo", 1, build)
