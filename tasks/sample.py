"""Task `sample`: candidates of a generator."""

from selftrain.stage import ArtifactRef
from selftrain.stages.sample import SAMPLE, SampleSlice
from tasks.run import Run, with_defaults


def sample(
    run: Run, problems: ArtifactRef, generator: ArtifactRef, pool: str, evaluation: bool = False
) -> ArtifactRef:
    """Stage D, first half: candidates for the rl split, or for validation and test (with the greedy one)."""
    settings = run.config.sample
    piece = SampleSlice(
        seed=run.config.seed,
        sample=with_defaults(settings, "rl", "evaluation"),  # `count` is the one that matters here
        splits=("validation", "test") if evaluation else ("rl",),
        count=settings.evaluation if evaluation else settings.rl,
        greedy=evaluation,
    )
    where = "evaluation" if evaluation else "rl"
    inputs = {"problems": problems, "generator": generator}
    return run.do(
        SAMPLE, f"sample-{pool}-{where}", piece, inputs, f"sample · {pool} · {where}", tags=("sampling",)
    )
