"""Task `ppo`: a policy trained against a reranker."""

from selftrain.stage import ArtifactRef
from selftrain.stages.ppo import PPO, PPOSlice
from tasks.run import Run


def ppo(
    run: Run, problems: ArtifactRef, generator: ArtifactRef, reranker: ArtifactRef, round: int
) -> ArtifactRef:
    """Stage C: PPO from the SFT policy against the reranker of `round`."""
    config = run.config
    piece = PPOSlice(seed=config.seed, ppo=config.ppo, max_new_tokens=config.sample.max_new_tokens)
    inputs = {"problems": problems, "generator": generator, "reranker": reranker}
    return run.do(PPO, f"ppo-{round}", piece, inputs, f"ppo · round {round}", tags=("training",))
