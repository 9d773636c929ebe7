"""Creates a plan: the needs of each stage of a run, and warnings with advice about what does not fit."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from selftrain.config import RunConfig, RuntimeConfig, SlotsConfig
from selftrain.errors import SelftrainError, UsageError
from selftrain.models.footprint import world, zero_of
from selftrain.models.shapes import Shape
from selftrain.plan.capacity import Capacity, capacities, too_few_shards, with_problems
from selftrain.plan.corpus import Corpus
from selftrain.plan.estimate import Planner, Step, check_batches
from selftrain.plan.rates import Graph, planner_of, shapes, with_rates
from selftrain.plan.speed import Speed, stated_speed
from selftrain.schedule import timeline
from selftrain.store.store import Store

GIB = 1 << 30
CPU_TFLOPS = 0.15
"""Peak of one core with AVX-512 in float32. Small models reach a third to a half of it."""
GPU_TFLOPS, GPU_GIB = 312.0, 80.0
"""Defaults: peak in bf16 and memory of an A100."""


@dataclass(frozen=True)
class Hardware:
    """The machines, as the user describes them.

    gpus                  total number of GPUs; None: processes and device as in the config
    memory_gib            memory of one process; None: the default GPU's, or an equal share of this machine's
    utilisation           share of the peak that training and scoring reach
    sampling_utilisation  share of the peak that sampling reaches
    tflops                peak of one process; None: the defaults above
    """

    gpus: int | None = None
    memory_gib: float | None = None
    utilisation: float = 0.4
    sampling_utilisation: float = 0.05
    tflops: float | None = None


@dataclass(frozen=True)
class Workload:
    """A workload other than the run's own.

    problems  number of rl problems in each language; None: as in the run
    machines  largest number of machines that share `sample` and `execute`; None: no table of capacities
    """

    problems: int | None = None
    machines: int | None = None


@dataclass(frozen=True)
class Plan:
    """A plan.

    shape         the generator's shape
    judge         the reranker's shape
    memory_bytes  memory that one process may use
    warnings      reasons why the run cannot work, with advice; empty: the run fits
    capacities    times on several machines; empty unless the workload has `machines`
    notes         remarks on `capacities`
    times         name of each stage -> seconds from the run's start to the stage's start and end
    """

    config: RunConfig
    shape: Shape
    judge: Shape
    corpus: Corpus
    speed: Speed
    steps: tuple[Step, ...]
    memory_bytes: int
    warnings: tuple[str, ...]
    capacities: tuple[Capacity, ...] = ()
    notes: tuple[str, ...] = ()
    times: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Wall time of the run, in which stages overlap where `runtime.slots` lets them."""
        return max((end for _, end in self.times.values()), default=0.0)

    def as_json(self) -> dict[str, Any]:
        """The plan as JSON values; bytes, seconds, FLOPs and tokens are plain numbers."""
        runtime = self.config.runtime
        return {
            "config": self.config.name,
            "processes": world(runtime),
            "device": runtime.device,
            "memory_bytes": self.memory_bytes,
            "model": {**vars(self.shape), "reranker_parameters": self.judge.classifier},
            "problems": self.corpus.counts,
            "speed": vars(self.speed),
            "seconds": self.seconds,
            "stages": [
                {
                    "name": step.name,
                    "stage": step.stage,
                    "parameters": step.parameters,
                    "prompt_tokens": step.tokens[0],
                    "completion_tokens": step.tokens[1],
                    "flops": sum(step.flops.values()),
                    "memory": step.memory and {**step.memory.terms, "total": step.memory.total},
                    "host_memory": step.memory.host if step.memory else 0,
                    "processes": step.processes,
                    "start": self.times[step.name][0],
                    "seconds": step.seconds,
                    "device_hours": step.hours,
                    "sandbox_cpu_seconds": step.sandbox_seconds,
                    "storage_bytes": step.kept,
                    "checkpoint_bytes": step.passing,
                }
                for step in self.steps
            ],
            "capacity": [
                {**vars(one), "seconds": one.seconds, "machine_hours": one.machine_hours}
                for one in self.capacities
            ],
            "assumptions": list(self.corpus.assumptions),
            "warnings": list(self.warnings),
        }


def on_hardware(config: RunConfig, hardware: Hardware) -> RunConfig:
    """The config for `hardware.gpus` GPUs. Raises UsageError where they cannot be spread evenly over `runtime.nodes`."""
    if hardware.gpus is None:
        return config
    nodes = config.runtime.nodes
    if hardware.gpus < 1 or hardware.gpus % nodes:
        raise UsageError(
            f"--gpus {hardware.gpus}: expected a multiple of runtime.nodes={nodes}, at least {nodes}; change one of them"
        )
    change = {"device": "cuda", "processes": hardware.gpus // nodes}
    return config.model_copy(update={"runtime": config.runtime.model_copy(update=change)})


def make_plan(
    config: RunConfig,
    hardware: Hardware,
    graph: Graph,
    workload: Workload | None = None,
    store: Callable[[], Store] | None = None,
) -> Plan:
    """The plan of a run.

    graph  config -> the stages of a run, as `flows.method` builds them
    store  opens the store from whose finished runs rates are read; None: use only the rates that follow from `hardware`

    Raises UsageError for a model whose config is not available, and what the run's stages would raise at their start.
    """
    config = on_hardware(config, hardware)
    shapes(config)  # before the corpus is read, so that a missing model is reported at once
    if config.model.base is not None or config.reward.base is not None:
        from selftrain.plan.suitable import check_architectures

        check_architectures(config)
    cuda = config.runtime.device == "cuda"
    tflops = hardware.tflops or (GPU_TFLOPS if cuda else CPU_TFLOPS * config.runtime.threads)
    scoring = 0.5 if cuda and config.reward.compute_type == "float32" else 1.0  # TF32
    speed = stated_speed(tflops, hardware.utilisation, hardware.sampling_utilisation, scoring)
    planner = planner_of(config, graph, speed)
    shape, judge, corpus = planner.shape, planner.judge, planner.corpus
    if store is not None:
        planner = replace(planner, speed=_rates(planner, store, graph))
    workload = workload or Workload()
    if workload.problems is not None:
        corpus = with_problems(corpus, config.problems.languages, workload.problems)
        planner = replace(planner, corpus=corpus)
    steps = tuple(planner.steps())
    limit = memory_limit(config.runtime, hardware)
    warnings = (
        *check_batches(config),
        *check_lengths(config, shape, corpus),
        *check_memory(config, steps, limit),
    )
    most = workload.machines
    table = tuple(capacities(planner, most)) if most else ()
    notes = tuple(too_few_shards(steps, most)) if most else ()
    slots = config.runtime.slots if overlaps(config.runtime) else SlotsConfig(steps=1)
    times = timeline(planner.nodes, slots, {step.name: step.seconds for step in steps})
    return Plan(config, shape, judge, corpus, planner.speed, steps, limit, warnings, table, notes, times)


def overlaps(runtime: RuntimeConfig) -> bool:
    """Whether time is gained where models and the sandbox work at the same time: not where they share too few cores."""
    cores = len(os.sched_getaffinity(0))
    return runtime.device == "cuda" or runtime.processes * runtime.threads + runtime.workers <= cores


def _rates(planner: Planner, store: Callable[[], Store], graph: Graph) -> Speed:
    """The planner's speed with the rates of finished runs; unchanged where the store cannot be read."""
    try:
        return with_rates(planner, store(), graph)
    except SelftrainError as error:
        reason = str(error).partition("\n")[0]
        return replace(planner.speed, said=(*planner.speed.said, f"no rates of finished runs: {reason}"))


def memory_limit(runtime: RuntimeConfig, hardware: Hardware) -> int:
    """Bytes that one process may use: a GPU's memory, or an equal share of this machine's."""
    if hardware.memory_gib is not None:
        return int(hardware.memory_gib * GIB)
    if runtime.device == "cuda":
        return int(GPU_GIB * GIB)
    return machine_bytes() // runtime.processes


def machine_bytes() -> int:
    """Bytes of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_lengths(config: RunConfig, shape: Shape, corpus: Corpus) -> Iterator[str]:
    """Warnings about prompts that, with a completion of full length, exceed the model's longest input."""
    room = shape.context - config.sample.max_new_tokens
    for split in ("rl", "validation", "test"):
        over = sum(tokens > room for tokens in corpus.prompts.get(split, []))
        if over:
            share = over / len(corpus.prompts[split])
            yield (
                f"{share:.0%} of the {split} prompts have more than {room} tokens, the model's longest input "
                f"({shape.context}) less sample.max_new_tokens={config.sample.max_new_tokens}; lower that"
            )


def check_memory(config: RunConfig, steps: tuple[Step, ...], limit: int) -> Iterator[str]:
    """Warnings about stages whose processes need more than `limit` bytes, one for each kind of stage, with advice."""
    seen: set[str] = set()
    unit = "GPU" if config.runtime.device == "cuda" else "process"
    for step in sorted(steps, key=lambda step: -(step.memory.total if step.memory else 0)):
        if step.memory is None or step.memory.total <= limit or step.stage in seen:
            continue
        seen.add(step.stage)
        yield (
            f"{step.name} cannot fit: {step.memory.total / GIB:.1f} GiB a {unit}, {limit / GIB:.1f} are there; "
            + "; ".join([*what_helps(config, step)] or ["a smaller model, or more memory"])
        )
    host = max((step.memory.host for step in steps if step.memory), default=0) * config.runtime.processes
    if host > machine_bytes():
        yield (
            f"offload puts {host / GIB:.0f} GiB into each node's own memory; this machine has {machine_bytes() / GIB:.0f}"
        )


def what_helps(config: RunConfig, step: Step) -> Iterator[str]:
    """Advice: settings that reduce the largest terms of a stage's memory, the most helpful first."""
    assert step.memory is not None
    terms, runtime = step.memory.terms, config.runtime
    parts: dict[str, Any] = {"sft": config.sft, "train_reward": config.reward, "ppo": config.ppo}
    part = parts.get(step.stage)
    names = {"sft": "sft", "train_reward": "reward", "ppo": "ppo"}
    for term in sorted(terms, key=lambda term: -terms[term])[:3]:
        states = term in ("weights", "gradients", "optimizer")
        if states and part is not None:
            if zero_of(runtime).stage < 3 and runtime.processes * runtime.nodes > 1:
                yield "shard them: runtime.deepspeed=zero3"
            elif zero_of(runtime).stage == 3 and not zero_of(runtime).offload_optimizer:
                yield "more GPUs, or offload: runtime.deepspeed=zero3-offload"
            if part.lora is None and config.model.base is not None:
                yield f"train adapters: {names[step.stage]}.lora={{rank: 16}}"
            break
    for term in sorted(terms, key=lambda term: -terms[term])[:3]:
        if term == "activations" and part is not None:
            field = "micro_batch" if step.stage == "ppo" else "micro_batch_size"
            if getattr(part, field) > 1:
                yield f"fewer rows at once: {names[step.stage]}.{field} below {getattr(part, field)}"
            if not runtime.recomputes:
                yield "recompute activations: runtime.gradient_checkpointing=true"
        if term == "kv cache":
            yield "fewer rollouts: ppo.rollout_batch, or shorter ones: sample.max_new_tokens"
        if term == "other models":
            yield "reference, reranker and the rollouts' copy are whole in each process: a smaller reranker (reward.base)"
    if step.stage in ("mine", "evaluate") and not runtime.scoring_shards and runtime.processes > 1:
        yield "score with the reranker in shards: runtime.scoring_shards=true"
    if part is None:
        yield f"fewer processes: runtime.processes below {runtime.processes}, or a smaller model"
