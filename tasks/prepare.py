"""Task `prepare`: reads the problems, assigns their splits and checks that their tests can run."""

from selftrain.problems.read import content_digest
from selftrain.stage import ArtifactRef
from selftrain.stages.prepare import PREPARE, PrepareSlice
from tasks.execute import toolchain
from tasks.run import Run


def prepare(run: Run) -> ArtifactRef:
    """Prepare the run's problems. The key contains a digest of the problem source's content.

    This opens the sandbox, so that a missing sandbox or tool raises before anything is trained.
    """
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
