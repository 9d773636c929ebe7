"""Task `prepare`: problems with their splits."""

from selftrain.problems.read import content_digest
from selftrain.stage import ArtifactRef
from selftrain.stages.prepare import PREPARE, PrepareSlice
from tasks.run import Run


def prepare(run: Run) -> ArtifactRef:
    """The run's problems; the source enters the key by its content."""
    problems = run.config.problems
    problems = problems.model_copy(update={"seed": problems.seed + run.config.seed})
    return run.do(PREPARE, "prepare", PrepareSlice(problems=problems, content=content_digest(problems)), {})
