"""Task `ppo`: a policy trained against a reranker, and against the sandbox where the config says so."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from sandbox.client import Sandbox
from sandbox.verdicts import Program, Verdict
from selftrain.launch.launch import Answer
from selftrain.records import Candidate, Problem, read_records
from selftrain.stage import ArtifactRef, Build, Outcome
from selftrain.stages import ppo as stage
from selftrain.stages.ppo import PPOSlice
from tasks.execute import judge, known_verdicts, programs, sandbox_at_work, toolchain
from tasks.run import Run


def ppo(
    run: Run, problems: ArtifactRef, generator: ArtifactRef, reranker: ArtifactRef, round: int
) -> ArtifactRef:
    """Stage C: PPO from the SFT policy against the reranker of `round`."""
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
    return run.do(PPO, f"ppo-{round}", config_slice, inputs, f"ppo · round {round}", tags=("training",))


def build(build: Build) -> Outcome:
    """The stage's own build, with the sandbox at hand where completions are executed."""
    if build.config.execute is None:
        return stage.build(build)
    with passing(build) as answer:
        return stage.build(build, answer)


@contextmanager
def passing(build: Build) -> Iterator[Answer]:
    """A function from rows [problem id, completion] to whether each passes; None where the sandbox failed."""
    problems = {p.id: p for p in read_records(build.inputs["problems"] / "problems.parquet", Problem)}
    with ExitStack() as stack:
        box: Sandbox = stack.enter_context(sandbox_at_work(build.runtime))
        cache = stack.enter_context(known_verdicts(build))

        def answer(rows: list[list[str]]) -> list[bool | None]:
            wanted: list[Program] = []
            for at, (name, text) in enumerate(rows):
                problem = replace(problems[name], example_tests="")
                candidate = Candidate(str(at), name, at, problem.cut(text), (), 0.0, "stop")
                wanted += programs(problem, candidate, build.config.execute)
            results = judge(wanted, box, cache, lambda _: None)
            verdicts = [results[str(at)].verdict for at in range(len(rows))]
            return [verdict is Verdict.passed if verdict.is_label else None for verdict in verdicts]

        yield answer


PPO = replace(stage.PPO, build=build)
