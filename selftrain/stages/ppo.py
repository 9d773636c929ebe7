"""Stage `ppo`: SFT policy + reranker -> trained policy. The work is in `selftrain.training.ppo.train`."""

from selftrain.config import ExecuteConfig, PPOConfig, Strict
from selftrain.launch.launch import Answer, launch
from selftrain.stage import Build, Outcome, Stage


class PPOSlice(Strict):
    """What the trained policy depends on, beside the problems, the SFT policy and the reranker.

    execute, toolchain  the sandbox's, where completions are executed (`execution_weight`, `probe`)
    """

    seed: int
    ppo: PPOConfig
    max_new_tokens: int
    execute: ExecuteConfig | None = None
    toolchain: dict[str, str] | None = None


def build(build: Build, answer: Answer | None = None) -> Outcome:
    """Reads `problems`, `generator` and `reranker`; writes a causal language model, its tokenizer and `samples.json`.

    answer  to rows [problem id, completion]: for each, whether it passes, None where the sandbox failed
    """
    return launch("selftrain.training.ppo.train", build, distributed=True, answer=answer)


PPO = Stage("ppo", 3, build, trains=True)
