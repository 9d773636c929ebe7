"""Continues from the champion: trains the next challenger and records whether it is promoted.

The stages are those of `flows.method`. The stages of earlier rounds are cache hits unless the problems or the config changed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from flows.method import Outline, method
from flows.session import carry_out
from selftrain.cache_key import canonical_json, fingerprint
from selftrain.champion.promotion import CHAMPION, POOL, Attempt, compare, next_attempt, verdict
from selftrain.champion.registry import Contender, Figures, Identity, Record, Registry, next_number
from selftrain.stage import ArtifactRef
from selftrain.stages.evaluate import EVALUATE
from tasks.run import Run, Step

AnyRun = TypeVar("AnyRun", bound=Run)


@dataclass(frozen=True)
class Decided:
    """Outcome of a run that continued from the champion.

    attempt  the attempt that the run made
    record   the decision on the challenger, by this run or by another run that decided first; None if there was nothing to do
    """

    attempt: Attempt
    record: Record | None

    @property
    def text(self) -> str:
        """The outcome in one line."""
        if self.record is None:
            return f"nothing to do: {self.attempt.nothing}"
        challenger = self.record.challenger
        decided = challenger or self.record.champion
        name = decided.ranker if decided else ""
        return f"{name} {self.record.decision}: {self.record.reason}"


def plan_next(run: Run) -> tuple[Attempt, Identity, list[Record]]:
    """Plan the next attempt for the config of `run`; builds no artifact.

    Returns the attempt, the identity of the decision on it, and the registry's records of earlier decisions.
    """
    records = Registry(run.store, run.config.name).records()
    champion = records[-1].champion if records else None
    contenders = (
        one for record in records for one in (record.champion, record.challenger) if one is not None
    )
    longest = max([run.config.rounds, *(one.rounds for one in contenders)])
    keys = Outline(
        run.config.model_copy(update={"rounds": longest + 2}),
        run.store,
        toolchain=run.toolchain,
        content=run.content,
    )
    method(keys)
    run.toolchain, run.content = keys.toolchain, keys.content

    def reranker(number: int) -> str:
        return str(keys.steps[f"rm-{number}"].ref)

    identity = Identity(
        champion=champion.reranker if champion else None,
        problems=str(keys.steps["prepare"].ref),
        method=fingerprint(
            {
                "reranker": reranker(2),  # the key of round 2 covers everything that later rounds depend on
                "pool": str(keys.steps[f"execute-{POOL}-evaluation"].ref),
                "evaluate": canonical_json(run.config.evaluate, "evaluate", whole=False),
                "version": EVALUATE.version,
            }
        ),
    )
    attempt = next_attempt(records, identity, reranker, run.config.rounds, run.config.promotion)
    return attempt, identity, records


def prepared(run: AnyRun, attempt: Attempt) -> tuple[AnyRun, ArtifactRef | None]:
    """Set the number of rounds of `attempt` in `run`; returns `run` and the champion's reranker if `method` must evaluate it too.

    The second value is None if there is no champion, or if the champion is one of the run's own rerankers.
    """
    run.config = run.config.model_copy(update={"rounds": attempt.rounds})
    foreign = None if attempt.of_chain or attempt.rival is None else ArtifactRef.parse(attempt.rival.reranker)
    return run, foreign


def train_challenger(open_: Callable[[], tuple[AnyRun, Path]]) -> tuple[AnyRun, dict[str, Any], Decided]:
    """Train the next challenger and decide on its promotion; returns the run, the content of its report.json, and the outcome.

    `open_` opens a new run and its folder. If another run records a decision in the meantime, this function starts over: it
    compares the challenger with the new champion. If that decision was on the same challenger, it is the outcome.
    """
    while True:
        run, folder = open_()
        attempt, identity, records = plan_next(run)
        run, foreign = prepared(run, attempt)
        content = carry_out(run, folder, partial(method, champion=foreign))
        if attempt.nothing is not None:
            return run, content, Decided(attempt, None)
        registry = Registry(run.store, run.config.name)
        record = judge(run, attempt, identity, records)
        if registry.append(record):
            return run, content, Decided(attempt, record)
        for other in registry.records()[len(records) :]:
            if (
                other.challenger
                and record.challenger
                and other.challenger.reranker == record.challenger.reranker
            ):
                return run, content, Decided(attempt, other)


def judge(run: Run, attempt: Attempt, identity: Identity, records: list[Record]) -> Record:
    """Compare the challenger of a finished `run` with the champion; returns the decision, which the caller records."""
    steps, rival = run.steps, attempt.rival
    names = {"problems": "prepare", "evaluation": "evaluate"} | {
        f"{POOL}.{role}": f"{stage}-{POOL}-evaluation"
        for role, stage in (("candidates", "sample"), ("executions", "execute"))
    }
    challenger = f"rm-{attempt.rounds}"
    against = None if rival is None else f"rm-{rival.rounds}" if attempt.of_chain else CHAMPION
    found = compare(
        {role: run.path(steps[name].ref) for role, name in names.items()},
        challenger,
        against,
        run.config.evaluate.bootstrap,
        run.config.seed,
    )
    origin = {
        role: str(steps[name].ref) for role, name in (("problems", "prepare"), ("evaluation", "evaluate"))
    }
    new = Contender(
        reranker=str(steps[challenger].ref),
        rounds=attempt.rounds,
        ranker=found.challenger.ranker,
        logprob_weight=found.challenger.logprob_weight,
        generator=str(steps["sft"].ref),
        **origin,
    )
    if rival is not None and found.rival is not None:
        ranker = found.rival.ranker.replace(CHAMPION, f"rm-{rival.rounds}")
        weight = found.rival.logprob_weight
        rival = rival.model_copy(update={"ranker": ranker, "logprob_weight": weight})
    promoted, reason = verdict(found.difference, run.config.promotion.tolerance, found.untrained, found.tasks)
    return Record(
        number=next_number(records),
        decision="promoted" if promoted else "not promoted",
        reason=reason,
        champion=new if promoted else records[-1].champion if records else None,
        challenger=new,
        rival=rival,
        difference=found.difference,
        identity=identity,
        figures=Figures(
            problems=found.problems,
            random=found.random,
            oracle=found.oracle,
            challenger=found.challenger.solved,
            champion=found.rival.solved if found.rival else None,
            **_measured(run, attempt.rounds),
        ),
    )


def _measured(run: Run, rounds: int) -> dict[str, Any]:
    """The metrics that a record takes from the manifests of a finished run: pass rate, sandbox errors, training seconds."""

    def manifest(step: Step) -> dict[str, Any]:
        return run.store.manifest(step.ref) or {}

    verdicts = {
        name: manifest(step)["metrics"]["verdicts"]
        for name, step in run.steps.items()
        if step.stage.name == "execute"
    }
    rl = verdicts[f"execute-{POOL}-rl"]
    # The last round's policy is not trained if nothing needs it.
    trained = [run.steps[name] for name in (f"rm-{rounds}", f"ppo-{rounds}") if name in run.steps]
    return {
        "pass_rate": rl.get("passed", 0) / max(sum(rl.values()), 1),
        "sandbox_errors": sum(counts.get("sandbox_error", 0) for counts in verdicts.values()),
        "training_seconds": sum(manifest(step)["seconds"] for step in trained),
    }
