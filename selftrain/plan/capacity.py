"""Machines and hours: what more machines under `runtime.dask` give a run. They share `sample` and `execute`, shard by shard."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from selftrain.plan.corpus import Corpus
from selftrain.plan.estimate import Planner, Step, check_batches


@dataclass(frozen=True)
class Capacity:
    """Seconds of a run's stages on so many machines.

    other    the stages that are not shared out: they run on the first machine, training on `nodes`
    trained  these stages where training has all machines as its nodes; None: its batches cannot be spread over them
    """

    machines: int
    nodes: int
    sample: float
    execute: float
    other: float
    trained: float | None

    @property
    def seconds(self) -> float:
        """Of the whole run."""
        return self.sample + self.execute + self.other

    @property
    def machine_hours(self) -> float:
        """Hours of machines that are at work; those that only share are not needed in the other stages."""
        return ((self.sample + self.execute) * self.machines + self.other * self.nodes) / 3600


def capacities(planner: Planner, most: int) -> list[Capacity]:
    """The run on 1, 2, 4, ... and `most` machines."""
    steps = list(planner.steps())
    found = []
    for machines in counts(most):
        seconds = {"sample": 0.0, "execute": 0.0, "other": 0.0}
        for step in steps:
            kind = step.stage if step.shards else "other"
            seconds[kind] += shared(step, machines, planner.speed.starts.get(step.stage, 0.0))
        trained = unshared_seconds(planner, machines)
        found.append(Capacity(machines, planner.runtime.nodes, **seconds, trained=trained))
    return found


def unshared_seconds(planner: Planner, nodes: int) -> float | None:
    """Seconds of the stages that are not shared out, training on so many nodes; None where its batches do not divide."""
    runtime = planner.runtime.model_copy(update={"nodes": nodes})
    config = planner.config.model_copy(update={"runtime": runtime})
    if any(check_batches(config)):
        return None
    return sum(step.seconds for step in replace(planner, config=config).steps() if not step.shards)


def counts(most: int) -> list[int]:
    """Powers of two below `most`, and `most`."""
    return [2**power for power in range(most.bit_length()) if 2**power < most] + [most]


def shared(step: Step, machines: int, start: float) -> float:
    """Seconds of a step on so many machines like the first: as long as the one that gets the most shards takes."""
    if not step.shards:
        return step.seconds
    alone = math.ceil(step.shards / step.processes)  # shards of a process, one after the other
    share = math.ceil(math.ceil(step.shards / machines) / step.processes)
    return start + (step.seconds - start) * share / alone


def too_few_shards(steps: Sequence[Step], machines: int) -> Iterator[str]:
    """Kinds of stages that cannot keep so many machines busy."""
    for stage in ("sample", "execute"):
        shards = max((step.shards for step in steps if step.stage == stage), default=0)
        if shards < machines:
            yield (
                f"{stage} has no more than {shards} shards: {machines - shards} of {machines} machines stay idle; lower "
                f"{stage}.shard"
            )


def with_problems(corpus: Corpus, languages: Sequence[str], problems: int) -> Corpus:
    """The corpus with so many problems to sample for in each language, of the same lengths."""
    said = f"problems: {problems:,} rl problems in each of {len(languages)} languages, as long as those that are at hand"
    counted = corpus.counts | {"rl": dict.fromkeys(languages, problems)}
    return replace(corpus, counts=counted, assumptions=(*corpus.assumptions, said))
