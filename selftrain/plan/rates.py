"""How fast this machine is: rates read from the manifests of the runs that are finished in a store.

A manifest's `pace` (see `tasks.run`) says how much of the stage's work was done in how many seconds, on which machine; the
planner says how many FLOPs that work was. Not covered: stages with a single unit of progress, and stages whose work other
machines shared (`runtime.dask`); both have no rate of their own.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean
from typing import Any

from pydantic import ValidationError

from selftrain.config import ModelConfig, RunConfig
from selftrain.errors import SelftrainError
from selftrain.models.shapes import Shape, shape_of
from selftrain.plan.corpus import Corpus, corpus_of
from selftrain.plan.estimate import Node, Planner, Step
from selftrain.plan.speed import Speed, where
from selftrain.stage import ArtifactRef
from selftrain.store.records import read_records
from selftrain.store.store import RUNS, Store

Graph = Callable[[RunConfig], Sequence[Node]]
"""Makes the nodes of a run, in order, without its model or its store."""

ALIKE = 4.0
"""A rate holds for models of at most so many times more or fewer parameters: small ones spend their time outside of products."""
NEWEST = 8
"""Runs that are read."""
SHORTEST = 0.1
"""Seconds of work that are enough to tell a rate."""
UNSTATED = "execute"
"""The kind of work whose rate is no FLOP/s."""


@dataclass(frozen=True)
class Rate:
    """One kind of work, as one finished stage did it.

    rate      FLOP/s of one process; of `execute` the CPU seconds of programs for each second of a worker
    start     seconds of the stage beside that work
    seconds   that the work took
    where     machine, and what the rate depends on there
    run       name of the run
    finished  when it was finished, in seconds since 1970
    """

    kind: str
    rate: float
    start: float
    seconds: float
    where: Mapping[str, Any]
    run: str
    finished: float = 0.0


def shapes(config: RunConfig, vocabulary: int | None = None) -> tuple[Shape, Shape]:
    """The shapes of a run's generator and of its reranker. Raises UsageError where a model's config cannot be had."""
    shape = shape_of(config.model, vocabulary)
    if config.reward.base is None:
        return shape, shape
    return shape, shape_of(ModelConfig(base=config.reward.base, revision=config.reward.base_revision))


def with_rates(planner: Planner, store: Store, graph: Graph) -> Speed:
    """The planner's speed with the rates that the finished runs in `store` show.

    A rate is taken from a run on the same kind of device with models of about the same size: from this machine rather than
    another, from as many processes rather than others, then from the newest, and there from the stage that took longest.
    """
    wanted = where(planner.config)

    def last(rate: Rate) -> tuple[bool, bool, float, float]:
        there = rate.where
        layout = all(there.get(name) == wanted[name] for name in ("processes", "nodes", "threads"))
        return there.get("machine") == wanted["machine"], layout, rate.finished, rate.seconds

    best: dict[str, Rate] = {}
    for rate in sorted(measured(planner, store, graph), key=last):
        best[rate.kind] = rate
    stated = planner.speed
    missing = [kind for kind in stated.rates if kind not in best]
    said = tuple(f"{kind}: {described(rate)}" for kind, rate in best.items())
    if missing:
        reason = (
            f"no finished run in {store.url} shows it"
            if best
            else f"no rates of finished runs in {store.url}"
        )
        said += (f"{', '.join(missing)}: {reason}; assumed {'; '.join(stated.said)}",)
    return Speed(
        stated.rates | {kind: rate.rate for kind, rate in best.items() if kind != UNSTATED},
        {kind: rate.start for kind, rate in best.items()},
        1 / best[UNSTATED].rate if UNSTATED in best else stated.sandbox,
        said,
    )


def described(rate: Rate) -> str:
    """For people: how fast, and which run says so."""
    day = time.strftime("%Y-%m-%d", time.localtime(rate.finished))
    if rate.kind == UNSTATED:
        speed = f"{rate.rate:.2g} CPU seconds of the table below in a second of a worker"
    else:
        speed = f"{rate.rate / 1e9:.3g} GFLOP/s a process"
    return f"{speed}, and {rate.start:.1f} s a stage, as in {rate.run} of {day}"


def measured(planner: Planner, store: Store, graph: Graph) -> Iterator[Rate]:
    """The rates of the newest finished runs whose device is the planner's and whose models are like its own."""
    records = [record for record in read_records(store, RUNS).values() if record.get("finished")]
    corpora = {_problems(planner.config): planner.corpus}
    for record in sorted(records, key=lambda record: -record["finished"])[:NEWEST]:
        try:
            config = RunConfig.model_validate(record["config"])
            earlier = _planner(config, planner, graph, corpora)
        except (KeyError, ValidationError, SelftrainError):  # of another version, or its problems are gone
            continue
        for node in earlier.nodes:
            if (made := record["stages"].get(node.name)) is not None:
                manifest = store.manifest(ArtifactRef(**made)) or {}
                for rate in rates_of(node, manifest, earlier, planner):
                    yield replace(rate, finished=record["finished"])


def _problems(config: RunConfig) -> str:
    """Names what `corpus_of` depends on."""
    return repr((config.problems, config.seed, config.model, config.sample.max_new_tokens))


def _planner(config: RunConfig, planner: Planner, graph: Graph, corpora: dict[str, Corpus]) -> Planner:
    """Plans an earlier run as `planner` plans its own."""
    name = _problems(config)
    if name not in corpora:
        shapes(config)  # a model that is gone is found out before its problems are read
        corpora[name] = corpus_of(config)
    shape, judge = shapes(config, corpora[name].vocabulary)
    return Planner(config, graph(config), shape, judge, corpora[name], planner.speed)


def rates_of(node: Node, manifest: Mapping[str, Any], earlier: Planner, planner: Planner) -> Iterator[Rate]:
    """The rates that one finished stage of an `earlier` run shows for `planner`; none where it says nothing of them."""
    pace = manifest.get("pace")
    if not pace or set(manifest["inputs"]) != set(node.inputs) or pace["unit"] == "parts":
        return
    there = where(earlier.config)
    if any(
        pace[name] != there[name] for name in there if name != "machine"
    ):  # built by a run before this one
        return
    units, seconds = pace["to"] - pace["from"], pace["seconds"]
    if units <= 0 or seconds < SHORTEST:
        return
    step = as_measured(earlier, node, manifest["metrics"]).step(node)
    share = units / pace["total"]
    start = max(0.0, manifest["seconds"] - seconds * (units + 1) / units)

    def rate(kind: str, work: float, seconds: float) -> Rate:
        return Rate(kind, work / seconds, start, seconds, pace, earlier.config.name)

    if step.stage == "execute":
        if pace["backend"] == planner.runtime.backend:
            yield rate("execute", step.sandbox_seconds * share / pace["workers"], seconds)
        return
    if pace["device"] != planner.runtime.device or not alike(step, planner):
        return
    phases = dict.fromkeys(step.flops, seconds)
    if step.stage == "ppo":  # the stage measures its phases itself
        spent = manifest["metrics"]["seconds"]
        drawing = spent["rollout"] / sum(spent.values())
        phases = {"rollout": drawing * seconds, "ppo": (1 - drawing) * seconds}
    for kind, work in step.flops.items():
        yield rate(kind, work * share / step.processes, phases[kind])


def alike(step: Step, planner: Planner) -> bool:
    """Whether the step's model is about as large as the planner's own for the same work."""
    judging = step.stage in ("train_reward", "mine", "evaluate")
    own = planner.judge.classifier if judging else planner.shape.parameters
    return abs(math.log(step.parameters / own)) <= math.log(ALIKE)


def as_measured(planner: Planner, node: Node, metrics: Mapping[str, Any]) -> Planner:
    """`planner` with what a finished stage's figures say: how long its completions were, how many pairs it learned from."""
    if node.stage.name == "train_reward":
        rounds = planner.maker(node.inputs["pairs"]).config.round
        return replace(planner, pairs=metrics["pairs"] / (1 - planner.config.reward.holdout) / rounds)
    if node.stage.name == "sample":
        return replace(planner, corpus=planner.corpus.as_long(metrics["tokens"] / metrics["candidates"]))
    if node.stage.name == "ppo":
        tokens = mean(row["tokens"] for row in metrics["curve"])
        return replace(planner, corpus=planner.corpus.as_long(tokens / planner.config.ppo.rollout_batch))
    return planner
