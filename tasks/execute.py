"""Task `execute`: runs a pool's candidates against their tests in the sandbox."""

from selftrain.problems.read import checker_languages
from selftrain.stage import ArtifactRef
from selftrain.stages.execute import EXECUTE, ExecuteSlice, toolchain_of
from tasks.run import Run
from tasks.sandbox import open_sandbox


def execute(
    run: Run, problems: ArtifactRef, candidates: ArtifactRef, pool: str, evaluation: bool = False
) -> ArtifactRef:
    """Step D, second part: run the candidates of a pool in the sandbox."""
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
    """Language -> the sandbox's identity for it, for the languages of problems and checkers; read once per run."""
    if not run.toolchain:
        named = dict.fromkeys(
            [*run.config.problems.languages, *sorted(checker_languages(run.config.problems))]
        )
        with open_sandbox(run.config.runtime) as sandbox:
            run.toolchain = {language: toolchain_of(sandbox, language) for language in named}
    return run.toolchain
