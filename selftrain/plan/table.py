"""Formats a plan as text for the terminal, or as an HTML page."""

from collections.abc import Iterator, Sequence

from selftrain.models.footprint import Memory, world, zero_of
from selftrain.plan.estimate import SANDBOX_MS, Step
from selftrain.plan.learning_rates import too_high
from selftrain.plan.plan import GIB, Plan, overlaps
from selftrain.report.charts import seconds_chart
from selftrain.report.template import environment, page_style
from selftrain.units import count_of, duration, size

Table = list[dict[str, str]]
"""Rows: heading of a column -> the cell below it."""


def text(plan: Plan) -> str:
    """The plan as text; lines have at most 120 characters unless names are long."""
    return "\n".join(_lines(plan))


def page(plan: Plan) -> str:
    """An HTML page of the same make as a run's report; it loads no other files."""
    return (
        environment()
        .get_template("plan.html")
        .render(
            name=plan.config.name,
            style=page_style(),
            verdict="It does not fit" if plan.warnings else "It fits",
            heading=list(heading(plan)),
            warnings=[*too_high(plan.config), *plan.warnings],
            stages=_used(stage_table(plan)),
            overlap=overlap(plan),
            seconds=seconds_chart({step.name: step.seconds for step in plan.steps}),
            unit=_unit(plan),
            there=f"{plan.memory_bytes / GIB:.1f}",
            memory=_used(memory_table(plan.steps)),
            workload=workload(plan) if plan.capacities else "",
            machines=_used(capacity_table(plan)) if plan.capacities else None,
            notes=plan.notes,
            assumptions=list(assumptions(plan)),
            text=text(plan),
        )
    )


def _lines(plan: Plan) -> Iterator[str]:
    yield from heading(plan)
    yield ""
    yield from _table(stage_table(plan))
    yield overlap(plan)
    yield ""
    yield f"memory of one {_unit(plan)}, GiB ({plan.memory_bytes / GIB:.1f} are there)"
    yield from _table(memory_table(plan.steps))
    yield ""
    if plan.capacities:
        yield workload(plan)
        yield from _table(capacity_table(plan))
        yield from plan.notes
        yield ""
    yield from assumptions(plan)
    yield ""
    yield from (f"CAUTION: {line}" for line in too_high(plan.config))
    yield from (f"WARNING: {line}" for line in plan.warnings)
    yield "it does not fit" if plan.warnings else "it fits"


def heading(plan: Plan) -> Iterator[str]:
    """Lines about the run, its machines, models and problems."""
    shape, runtime = plan.shape, plan.config.runtime
    gpus = runtime.device == "cuda"
    zero = zero_of(runtime)
    yield (
        f"{plan.config.name}: {count_of(plan.config.rounds, 'round')}, {_processes(world(runtime), gpus)}"
        f" on {count_of(runtime.nodes, 'node')}, "
        + (f"ZeRO-{zero.stage}{' with offload' * zero.offload_optimizer}" if zero.stage else "no DeepSpeed")
    )
    yield (
        f"generator {shape.parameters:,} parameters, reranker {plan.judge.classifier:,}; {shape.layers} layers of "
        f"{shape.hidden}, {shape.vocabulary:,} tokens, input up to {shape.context:,}"
    )
    counts = {split: sum(by.values()) for split, by in plan.corpus.counts.items() if by}
    yield "problems: " + ", ".join(f"{split} {count:,}" for split, count in counts.items())


def stage_table(plan: Plan) -> Table:
    """A row for each stage, then the total."""
    unit = "GPU h" if plan.config.runtime.device == "cuda" else "process h"
    rows = [_row(step, unit) for step in plan.steps]
    total = Step(
        "total",
        "",
        tokens=(sum(s.tokens[0] for s in plan.steps), sum(s.tokens[1] for s in plan.steps)),
        flops={"all": sum(sum(s.flops.values()) for s in plan.steps)},
        seconds=plan.seconds,
        sandbox_seconds=sum(s.sandbox_seconds for s in plan.steps),
        kept=sum(s.kept for s in plan.steps),
        passing=max(s.passing for s in plan.steps),
    )
    return [*rows, _row(total, unit) | {unit: f"{sum(s.hours for s in plan.steps):.3g}"}]


def overlap(plan: Plan) -> str:
    """A line about the stages that work at the same time."""
    runtime, alone = plan.config.runtime, sum(step.seconds for step in plan.steps)
    if not overlaps(runtime):
        return (
            "wall time: stages one after the other; they may overlap (runtime.slots), but models and sandbox share this machine's "
            "cores, so no time is gained"
        )
    slots = ", ".join(
        f"{name} {value}" for name, value in runtime.slots.model_dump(exclude_none=True).items()
    )
    return (
        f"wall time: {duration(plan.seconds)}, of the stages one after the other {duration(alone)}; they overlap within "
        f"runtime.slots ({slots})"
    )


def _processes(count: int, gpus: bool) -> str:
    return count_of(count, "GPU") if gpus else count_of(count, "process", "processes")


def workload(plan: Plan) -> str:
    """A line about the work that machines share, and the processes of each machine."""
    config, runtime = plan.config, plan.config.runtime
    pools = config.rounds
    problems = plan.corpus.count("rl")
    return (
        f"{problems:,} rl problems (all languages) x {count_of(config.sample.rl, 'sample')} x {count_of(pools, 'pool')} = "
        f"{problems * config.sample.rl * pools:,} candidates, and the pools to evaluate; sampled and executed by machines with "
        f"{_processes(runtime.processes, runtime.device == 'cuda')} and {count_of(runtime.workers, 'sandbox worker')} each"
    )


def capacity_table(plan: Plan) -> Table:
    """A row for each number of machines, in hours."""
    return [
        {
            "machines": str(one.machines),
            "sample h": hours(one.sample / 3600),
            "execute h": hours(one.execute / 3600),
            "other stages h": hours(one.other / 3600),
            "whole run h": hours(one.seconds / 3600),
            "machine h": hours(one.machine_hours),
            "with training on all h": "-"
            if one.trained is None
            else hours((one.sample + one.execute + one.trained) / 3600),
        }
        for one in plan.capacities
    ]


def assumptions(plan: Plan) -> Iterator[str]:
    """Lines about the sources of rates and counts, and about assumptions."""
    yield from (f"time: {line}" for line in plan.speed.said)
    languages = dict.fromkeys(name for split in plan.corpus.counts.values() for name in split)
    rates = ", ".join(f"{name} {SANDBOX_MS[name]}" for name in languages)
    yield f"sandbox, CPU ms a program: {rates} (backend docker; docs/results.md, The sandbox)"
    for line in plan.corpus.assumptions:
        yield f"assumed: {line}"
    endless = ", 1 % of programs run into their time limit" * (plan.config.problems.source != "bank")
    yield f"assumed: half of the problems give pairs, 0.7 of a problem's candidates are distinct programs{endless}"
    if plan.capacities:
        yield (
            "assumed: machines like the first; it merges and does the other stages, training on runtime.nodes="
            f"{plan.config.runtime.nodes}; moving shards through the store is not counted"
        )


def _row(step: Step, unit: str) -> dict[str, str]:
    flops = sum(step.flops.values())
    return {
        "stage": step.name,
        "prompt tok": count(step.tokens[0]) if flops else "",
        "compl. tok": count(step.tokens[1]) if flops else "",
        "FLOPs": f"{flops:.2e}" if flops else "",
        "GiB each": f"{step.memory.total / GIB:.2f}" if step.memory else "",
        "wall": duration(step.seconds) if step.seconds else "",
        unit: f"{step.hours:.3g}" if flops else "",
        "sandbox CPU h": f"{step.sandbox_seconds / 3600:.3g}" if step.sandbox_seconds else "",
        "stored": size(step.kept) if step.kept else "",
        "passing": size(step.passing) if step.passing else "",
    }


def _unit(plan: Plan) -> str:
    return "GPU" if plan.config.runtime.device == "cuda" else "process"


def memory_table(steps: Sequence[Step]) -> Table:
    """A row for each kind of stage: the memory of its step that needs most, GiB."""
    largest: dict[str, tuple[str, Memory]] = {}
    for step in steps:
        if step.memory and (step.stage not in largest or step.memory.total > largest[step.stage][1].total):
            largest[step.stage] = step.name, step.memory
    terms = list(dict.fromkeys(term for _, memory in largest.values() for term in memory.terms))
    rows = []
    for name, memory in largest.values():
        cells = {term: f"{memory.terms[term] / GIB:.2f}" if memory.terms.get(term) else "" for term in terms}
        host = f"{memory.host / GIB:.1f}" if memory.host else ""
        rows.append({"stage": name} | cells | {"total": f"{memory.total / GIB:.2f}", "host": host})
    return rows


def _used(rows: Table) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of the columns that are not empty."""
    head = [name for name in rows[0] if any(row[name] for row in rows)]
    return head, [[row[name] for name in head] for row in rows]


def _table(rows: Table) -> Iterator[str]:
    head, cells_of_rows = _used(rows)
    lines = [head, *cells_of_rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = [
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def hours(number: float) -> str:
    """`number` with three digits, or as a whole number from 100 on."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def count(number: float) -> str:
    """1234567 as 1.23M."""
    for unit, least in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= least:
            return f"{number / least:.3g}{unit}"
    return f"{number:.0f}"
