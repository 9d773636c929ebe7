"""Task `execute`: verdicts of a pool's candidates, from the sandbox."""

from selftrain.problems.read import checker_languages
from selftrain.stage import ArtifactRef
from selftrain.stages.execute import EXECUTE, ExecuteSlice, toolchain_of
from tasks.run import Run
from tasks.sandbox import open_sandbox


def execute(
    run: Run, problems: ArtifactRef, candidates: ArtifactRef, pool: str, evaluation: bool = False
) -> ArtifactRef:
    """Stage D, second half: verdicts of a pool's candidates."""
    config_slice = ExecuteSlice(execute=run.config.execute, toolchain=toolchain(run))
    where = "evaluation" if evaluation else "rl"
    inputs = {"problems": problems, "candidates": candidates}
    return run.do(
        EXECUTE,
        f"execute-{pool}-{where}",
        config_slice,
        inputs,
        f"execute · {pool} · {where}",
    )


def toolchain(run: Run) -> dict[str, str]:
    """The toolchain of each of the run's languages, as the sandbox names it; asked once per run."""
    if not run.toolchain:
        named = dict.fromkeys(
            [*run.config.problems.languages, *sorted(checker_languages(run.config.problems))]
        )
        with open_sandbox(run.config.runtime) as sandbox:
            run.toolchain = {language: toolchain_of(sandbox, language) for language in named}
    return run.toolchain
