"""Task `prepare`: problems with their splits, whose tests can run."""

from selftrain.problems.read import content_digest
from selftrain.stage import ArtifactRef
from selftrain.stages.prepare import PREPARE, PrepareSlice
from tasks.execute import toolchain
from tasks.run import Run


def prepare(run: Run) -> ArtifactRef:
    """The run's problems; the source enters the key by its content. A sandbox or a tool that is missing is told here,
    before anything is trained."""
    tools = toolchain(run)
    problems = run.config.problems
    problems = problems.model_copy(update={"seed": problems.seed + run.config.seed})
    run.content = run.content or content_digest(problems)
    outside = problems.source != "bank"
    return run.do(
        PREPARE,
        "prepare",
        PrepareSlice(problems=problems, content=run.content, toolchain=tools if outside else None),
        {},
    )
