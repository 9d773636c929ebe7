"""Estimates a run's time on several machines, which share the shards of `sample` and `execute` (`runtime.dask`)."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from selftrain.plan.corpus import Corpus
from selftrain.plan.estimate import Planner, Step, check_batches
from selftrain.units import count_of, doublings


@dataclass(frozen=True)
class Capacity:
    """Seconds of a run's stages on `machines` machines.

    nodes    nodes that train (`runtime.nodes`)
    sample   seconds of all stages `sample`, shared by all machines
    execute  seconds of all stages `execute`, shared by all machines
    other    seconds of the other stages, which run on the first machine, and training on `nodes`
    trained  as `other`, if training used all machines; None where its batches cannot be split evenly over them
    """

    machines: int
    nodes: int
    sample: float
    execute: float
    other: float
    trained: float | None

    @property
    def seconds(self) -> float:
        """Seconds of all stages."""
        return self.sample + self.execute + self.other

    @property
    def machine_hours(self) -> float:
        """Hours times machines in use: stages that are not shared use only `nodes` machines."""
        return ((self.sample + self.execute) * self.machines + self.other * self.nodes) / 3600


def capacities(planner: Planner, most: int) -> list[Capacity]:
    """The run's times on 1, 2, 4, ... machines and on `most` machines."""
    steps = list(planner.steps())
    found = []
    for machines in doublings(most):
        seconds = {"sample": 0.0, "execute": 0.0, "other": 0.0}
        for step in steps:
            kind = step.stage if step.shards else "other"
            seconds[kind] += shared(step, machines, planner.speed.starts.get(step.stage, 0.0))
        trained = unshared_seconds(planner, machines)
        found.append(Capacity(machines, planner.runtime.nodes, **seconds, trained=trained))
    return found


def unshared_seconds(planner: Planner, nodes: int) -> float | None:
    """Seconds of the stages that are not shared, with training on `nodes` nodes; None where batches cannot be split evenly."""
    runtime = planner.runtime.model_copy(update={"nodes": nodes})
    config = planner.config.model_copy(update={"runtime": runtime})
    if any(check_batches(config)):
        return None
    return sum(step.seconds for step in replace(planner, config=config).steps() if not step.shards)


def shared(step: Step, machines: int, start: float) -> float:
    """Seconds of a step on `machines` equal machines, until the one with most shards is done. `start`: seconds to start up."""
    if not step.shards:
        return step.seconds
    alone = math.ceil(step.shards / step.processes)  # shards of the process with most of them, on one machine
    share = math.ceil(math.ceil(step.shards / machines) / step.processes)
    return start + (step.seconds - start) * share / alone


def too_few_shards(steps: Sequence[Step], machines: int) -> Iterator[str]:
    """Warnings for stages with fewer shards than machines."""
    for stage in ("sample", "execute"):
        shards = max((step.shards for step in steps if step.stage == stage), default=0)
        if shards < machines:
            yield (
                f"{stage} has no more than {count_of(shards, 'shard')}: {machines - shards} of {count_of(machines, 'machine')} stay idle; lower "
                f"{stage}.shard"
            )


def with_problems(corpus: Corpus, languages: Sequence[str], problems: int) -> Corpus:
    """The corpus with `problems` rl problems in each language, with unchanged lengths."""
    said = f"problems: {problems:,} rl problems in each of {len(languages)} languages, as long as those that are at hand"
    counted = corpus.counts | {"rl": dict.fromkeys(languages, problems)}
    return replace(corpus, counts=counted, assumptions=(*corpus.assumptions, said))
