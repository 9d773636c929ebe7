"""Task `sample`: samples candidates from a generator."""

from selftrain.sampling.processor import adds_exactly
from selftrain.stage import ArtifactRef
from selftrain.stages.sample import SAMPLE, SampleSlice
from tasks.run import LOGGER, Run, with_defaults


def sample(
    run: Run, problems: ArtifactRef, generator: ArtifactRef, pool: str, evaluation: bool = False
) -> ArtifactRef:
    """Step D, first part: sample candidates for the rl split; if `evaluation`, for validation and test, also greedy ones."""
    settings = run.config.sample
    if settings.engine == "ctranslate2" and settings.compute_type == "int8" and not adds_exactly():
        LOGGER.warning(
            "sample.compute_type: int8 would give wrong log-probabilities on this processor, which has no VNNI instructions; "
            "%s is sampled in float32, and its key says so",
            pool,
        )
        settings = settings.model_copy(update={"compute_type": "float32"})
    config_slice = SampleSlice(
        seed=run.config.seed,
        sample=with_defaults(settings, "rl", "evaluation"),  # the number that matters is in `count`
        splits=("validation", "test") if evaluation else ("rl",),
        count=settings.evaluation if evaluation else settings.rl,
        greedy=evaluation,
    )
    where = "evaluation" if evaluation else "rl"
    inputs = {"problems": problems, "generator": generator}
    return run.do(
        SAMPLE,
        f"sample-{pool}-{where}",
        config_slice,
        inputs,
        f"sample · {pool} · {where}",
    )
