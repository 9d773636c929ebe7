"""Prefect flow `evaluate`: measures one reranker on the problems of a config, without training.

It samples candidates from one generator, runs them in the sandbox, ranks them and writes a report.

prefect deployment run evaluate/evaluate
"""

from typing import Any

from prefect import flow

from flows.deployed import attempt
from flows.session import carry_out, open_run
from selftrain.champion.registry import Contender, Registry, contender
from selftrain.errors import UsageError
from selftrain.stage import ArtifactRef
from tasks import stages
from tasks.notify import FLOW
from tasks.prefect import PrefectRun
from tasks.run import Run


@flow(name="evaluate", **FLOW)
def evaluate(
    config: str = "demo",
    overrides: dict[str, Any] | None = None,
    reranker: str | None = None,
    generator: str | None = None,
    out: str | None = None,
) -> Any:
    """Measure a reranker on the test problems of a config; nothing is trained.

    Args:
        config: a YAML file, or the name of a shipped config (demo, prod, ...)
        overrides: settings that replace those of the config, by dotted name, e.g. {"problems.evaluation": "new.jsonl"}
        reranker: key of a reranker in the store, or its first digits; default: the champion of the config's name
        generator: STAGE/KEY of the generator whose candidates are ranked; default: the SFT policy that the reranker ranks for
        out: the run's folder; default: one of its own in runs/, to which runs/NAME-evaluate then leads
    """

    def work() -> dict[str, Any]:
        run, folder = open_run(PrefectRun, config, overrides, None, out, "-evaluate")
        ranked, ref = subject(run, reranker, generator)
        manifest = run.store.manifest(ref) or {}
        name = str(manifest.get("name", ref.stage))
        rerankers = {f"rm-{ranked.rounds}": ArtifactRef.parse(ranked.reranker)}

        def measure(run: PrefectRun) -> ArtifactRef:
            problems = stages.prepare(run)
            candidates = stages.sample(run, problems, ref, name, evaluation=True)
            pools = {name: (candidates, stages.execute(run, problems, candidates, name, evaluation=True))}
            return stages.report(run, problems, pools, None, stages.evaluate(run, problems, pools, rerankers))

        return carry_out(run, folder, measure)

    return attempt(evaluate, work)


def subject(run: Run, reranker: str | None, generator: str | None) -> tuple[Contender, ArtifactRef]:
    """The reranker to measure and the generator to sample from. Raises UsageError if the store does not have them."""
    records = Registry(run.store, run.config.name).records()
    champion = records[-1].champion if records else None
    key = reranker or (champion.reranker if champion else None)
    if key is None:
        raise UsageError(
            f"{run.config.name} has no champion in {run.store.url}: give `reranker`, its key, or promote one first"
        )
    ranked = contender(run.store, records, key)
    wanted = generator or ranked.generator
    if wanted is None:
        raise UsageError(
            f"{ranked.reranker} does not name the generator that it was made for: give `generator` as STAGE/KEY"
        )
    ref = ArtifactRef.parse(wanted)
    if not run.store.has(ref):
        raise UsageError(
            f"generator {wanted} is not in {run.store.url}, or its files are incomplete; expected STAGE/KEY, e.g. sft/4f2a..."
        )
    return ranked, ref
