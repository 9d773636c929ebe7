"""Task `sft`: trains the SFT policy, the first generator."""

from selftrain.models.weights import base_digest
from selftrain.stage import ArtifactRef
from selftrain.stages.sft import SFT, SftSlice
from tasks.run import Run


def sft(run: Run, problems: ArtifactRef) -> ArtifactRef:
    """Step A: fine-tune the generator on (prompt, response)."""
    config = run.config
    config_slice = SftSlice(
        seed=config.seed, model=config.model, base_digest=base_digest(config.model), sft=config.sft
    )
    return run.do(SFT, "sft", config_slice, {"problems": problems})
