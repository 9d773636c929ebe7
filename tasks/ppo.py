"""Task `ppo`: trains a policy with the reranker's scores, and optionally test results, as the reward."""

from selftrain.stage import ArtifactRef
from selftrain.stages.ppo import PPO, PPOSlice
from tasks.execute import toolchain
from tasks.run import Run


def ppo(
    run: Run, problems: ArtifactRef, generator: ArtifactRef, reranker: ArtifactRef, round: int
) -> ArtifactRef:
    """Step C: PPO from the SFT policy against the reranker of `round`."""
    config = run.config
    executes = bool(config.ppo.execution_weight or config.ppo.probe)
    config_slice = PPOSlice(
        seed=config.seed,
        ppo=config.ppo,
        max_new_tokens=config.sample.max_new_tokens,
        execute=config.execute if executes else None,
        toolchain=toolchain(run) if executes else None,
    )
    inputs = {"problems": problems, "generator": generator, "reranker": reranker}
    return run.do(PPO, f"ppo-{round}", config_slice, inputs, f"ppo · round {round}")
