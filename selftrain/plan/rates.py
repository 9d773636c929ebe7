"""Measures FLOP/s from finished runs: reads the times in the manifests of a store.

The field `pace` of a manifest (see `tasks.run`) records how many units of the stage's work took how many seconds, and on which
machine. The planner computes the FLOPs of these units. Not covered: stages with a single unit of progress, and stages that
several machines shared (`runtime.dask`).
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean
from typing import Any

from pydantic import ValidationError

from selftrain.config import RunConfig
from selftrain.errors import SelftrainError
from selftrain.models.shapes import Shape, shape_of
from selftrain.plan.corpus import corpus_of
from selftrain.plan.estimate import Planner, Step
from selftrain.plan.speed import Speed, where
from selftrain.stage import ArtifactRef
from selftrain.stage import Step as Node
from selftrain.store.runrecords import run_records
from selftrain.store.store import Store

Graph = Callable[[RunConfig], Sequence[Node]]
"""Builds the stages of a run, in order; needs neither its models nor its store."""

ALIKE = 4.0
"""A rate is used for models of up to this factor more or fewer parameters: small models reach fewer FLOP/s."""
NEWEST = 8
"""Number of runs that are read, the newest first."""
RECENT = 3
"""Number of runs of whose rates the middle one is taken."""
SHORTEST = 0.1
"""Seconds of work that are needed to measure a rate."""
UNSTATED = "execute"
"""The kind of work whose rate is not in FLOP/s."""


@dataclass(frozen=True)
class Rate:
    """The rate of one kind of work, measured in one finished stage.

    kind      as in `Speed.rates`, or `execute`
    rate      FLOP/s of one process; of `execute`: CPU seconds of programs (by `SANDBOX_MS`) per second of a worker
    start     seconds of the stage outside of this work: start of the processes, and saving
    seconds   duration of the work
    where     the manifest's `pace`: machine, device, processes, ...
    run       name of the run
    finished  time when the run finished, seconds since 1970
    """

    kind: str
    rate: float
    start: float
    seconds: float
    where: Mapping[str, Any]
    run: str
    finished: float = 0.0


def shapes(config: RunConfig, vocabulary: int | None = None) -> tuple[Shape, Shape]:
    """The shapes of a run's generator and reranker. Raises UsageError where a model's config is not available."""
    shape, layers = shape_of(config.model, vocabulary), config.reward.layers
    if config.reward.base is not None:
        return shape, shape_of(config.reward.model, layers=layers)
    return shape, shape if layers is None else shape_of(config.model, vocabulary, layers)


def with_rates(planner: Planner, store: Store, graph: Graph) -> Speed:
    """The planner's speed, with rates that were measured in the finished runs in `store`.

    Only runs on the same kind of device with models of similar size (`ALIKE`) are used. If several have a rate, preferred
    are, in this order: the same machine; the same numbers of processes, nodes and threads; the newest runs; in each, the longest
    stage. Of the `RECENT` newest runs the middle rate is taken, of two the higher: one that ran beside other work says little.
    """
    wanted = where(planner.config)

    def fit(rate: Rate) -> tuple[bool, bool]:
        layout = all(rate.where.get(name) == wanted[name] for name in ("processes", "nodes", "threads"))
        return rate.where.get("machine") == wanted["machine"], layout

    found: dict[str, list[Rate]] = {}
    for rate in measured(planner, store, graph):
        found.setdefault(rate.kind, []).append(rate)
    best: dict[str, Rate] = {}
    for kind, rates in found.items():
        closest = max(map(fit, rates))
        best[kind] = _usual([rate for rate in rates if fit(rate) == closest])
    stated = planner.speed
    said = tuple(f"{kind}: {described(rate)}" for kind, rate in best.items())
    if missing := [kind for kind in stated.rates if kind not in best]:
        reason = "no finished run in {} shows it" if best else "no rates of finished runs in {}"
        assumed = f"{reason.format(store.url)}; assumed {'; '.join(stated.said)}"
        said += (f"{', '.join(missing)}: {assumed}",)
    return Speed(
        stated.rates | {kind: rate.rate for kind, rate in best.items() if kind != UNSTATED},
        {kind: rate.start for kind, rate in best.items()},
        1 / best[UNSTATED].rate if UNSTATED in best else stated.sandbox,
        said,
    )


def _usual(rates: Sequence[Rate]) -> Rate:
    """The middle one of the rates of the `RECENT` newest runs. A stage that several runs share, from the cache, counts once."""
    once = {(rate.rate, rate.seconds): rate for rate in sorted(rates, key=lambda rate: rate.finished)}
    longest = {rate.finished: rate for rate in sorted(once.values(), key=lambda rate: rate.seconds)}
    recent = [longest[finished] for finished in sorted(longest)[-RECENT:]]
    return sorted(recent, key=lambda rate: rate.rate)[len(recent) // 2]


def described(rate: Rate) -> str:
    """Text: the rate, and the run in which it was measured."""
    day = time.strftime("%Y-%m-%d", time.localtime(rate.finished))
    if rate.kind == UNSTATED:
        speed = f"{rate.rate:.2g} CPU seconds of the table below in a second of a worker"
    else:
        speed = f"{rate.rate / 1e9:.3g} GFLOP/s a process"
    return f"{speed}, and {rate.start:.1f} s a stage, as in {rate.run} of {day}"


def measured(planner: Planner, store: Store, graph: Graph) -> Iterator[Rate]:
    """The rates in the newest finished runs that have the planner's device, and models of similar size."""
    records = [record for record in run_records(store).values() if record.get("finished")]
    for record in sorted(records, key=lambda record: -record["finished"])[:NEWEST]:
        try:
            config = RunConfig.model_validate(record["config"])
            earlier = planner_of(config, graph, planner.speed)
        except (KeyError, ValidationError, SelftrainError):
            continue  # of another version, or its data or models are gone
        for node in earlier.nodes:
            if (made := record["stages"].get(node.name)) is not None:
                manifest = store.manifest(ArtifactRef(**made)) or {}
                for rate in rates_of(node, manifest, earlier, planner):
                    yield replace(rate, finished=record["finished"])


def planner_of(config: RunConfig, graph: Graph, speed: Speed) -> Planner:
    """The planner of a run. Raises UsageError and DataError where its models or problems are not available."""
    shapes(config)  # raises for a missing model before its problems are read
    corpus = corpus_of(config)
    shape, judge = shapes(config, corpus.vocabulary)
    return Planner(config, graph(config), shape, judge, corpus, speed)


def rates_of(node: Node, manifest: Mapping[str, Any], earlier: Planner, planner: Planner) -> Iterator[Rate]:
    """The rates of one finished stage of the run of `earlier` that are valid for `planner`; none where they were not measured."""
    pace = manifest.get("pace")
    if not pace or set(manifest["inputs"]) != set(node.inputs) or pace["unit"] == "parts":
        return
    there = where(earlier.config)
    if any(pace[name] != there[name] for name in there if name != "machine"):
        return  # a cache hit: a run with other settings built the artifact
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
    if not step.flops or pace["device"] != planner.runtime.device or not alike(step, planner):
        return
    phases = dict.fromkeys(step.flops, seconds)
    if step.stage == "ppo":  # its manifest has the seconds of each phase
        spent = manifest["metrics"]["seconds"]
        drawing = spent["rollout"] / sum(spent.values())
        phases = {"rollout": drawing * seconds, "ppo": (1 - drawing) * seconds}
    for kind, work in step.flops.items():
        yield rate(kind, work * share / step.processes, phases[kind])


def alike(step: Step, planner: Planner) -> bool:
    """Whether the step's model and the planner's model for the same work have similar sizes (`ALIKE`)."""
    judging = step.stage in ("train_reward", "mine", "evaluate")
    own = planner.judge.classifier if judging else planner.shape.parameters
    return abs(math.log(step.parameters / own)) <= math.log(ALIKE)


def as_measured(planner: Planner, node: Node, metrics: Mapping[str, Any]) -> Planner:
    """`planner` with numbers from a finished stage's metrics: mean length of completions, or number of pairs."""
    if node.stage.name == "train_reward":
        rounds = planner.maker(node.inputs["pairs"]).config.round
        return replace(planner, pairs=metrics["pairs"] / (1 - planner.config.reward.holdout) / rounds)
    if node.stage.name == "sample":
        return replace(planner, corpus=planner.corpus.as_long(metrics["tokens"] / metrics["candidates"]))
    if node.stage.name == "ppo":
        tokens = mean(row["tokens"] for row in metrics["curve"])
        return replace(planner, corpus=planner.corpus.as_long(tokens / planner.config.ppo.rollout_batch))
    return planner
