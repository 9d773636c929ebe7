"""The plan as text for a terminal."""

from collections.abc import Iterator, Sequence

from selftrain.plan.estimate import Step
from selftrain.plan.memory import world, zero_of
from selftrain.plan.plan import GIB, Plan


def text(plan: Plan) -> str:
    """Everything, as lines of at most 120 characters where names allow."""
    return "\n".join(_lines(plan))


def _lines(plan: Plan) -> Iterator[str]:
    shape, runtime = plan.shape, plan.config.runtime
    gpus = runtime.device == "cuda"
    zero = zero_of(runtime)
    yield (
        f"{plan.config.name}: {plan.config.rounds} rounds, {world(runtime)} {'GPUs' if gpus else 'processes'}"
        f" on {runtime.nodes} node{'s' * (runtime.nodes > 1)}, "
        + (f"ZeRO-{zero.stage}{' with offload' * zero.offload_optimizer}" if zero.stage else "no DeepSpeed")
    )
    yield (
        f"generator {shape.parameters:,} parameters, reranker {plan.judge.classifier:,}; {shape.layers} layers of "
        f"{shape.hidden}, {shape.vocabulary:,} tokens, input up to {shape.context:,}"
    )
    counts = {split: sum(by.values()) for split, by in plan.corpus.counts.items() if by}
    yield "problems: " + ", ".join(f"{split} {count:,}" for split, count in counts.items())
    yield ""
    rows = [_row(step) for step in plan.steps]
    total = Step(
        "total",
        "",
        tokens=(sum(s.tokens[0] for s in plan.steps), sum(s.tokens[1] for s in plan.steps)),
        flops={"all": sum(sum(s.flops.values()) for s in plan.steps)},
        seconds=sum(s.seconds for s in plan.steps),
        sandbox_seconds=sum(s.sandbox_seconds for s in plan.steps),
        kept=sum(s.kept for s in plan.steps),
        passing=max(s.passing for s in plan.steps),
    )
    last = _row(total)
    last[4], last[6] = "", f"{sum(s.hours for s in plan.steps):.3g}"
    unit = "GPU h" if gpus else "process h"
    head = [
        "stage",
        "prompt tok",
        "compl. tok",
        "FLOPs",
        "GiB each",
        "wall",
        unit,
        "sandbox CPU h",
        "stored",
        "passing",
    ]
    yield from _table(head, [*rows, last])
    yield ""
    yield f"memory of one {'GPU' if gpus else 'process'}, GiB ({plan.memory_bytes / GIB:.1f} are there)"
    yield from _memory(plan.steps)
    yield ""
    yield f"time: {plan.speed.said}"
    for line in plan.corpus.assumptions:
        yield f"assumed: {line}"
    endless = ", 1 % of programs run into their time limit" * (plan.config.problems.source != "bank")
    yield f"assumed: half of the problems give pairs, 0.7 of a problem's candidates are distinct programs{endless}"
    yield ""
    yield from (f"WARNING: {line}" for line in plan.warnings)
    yield "it does not fit" if plan.warnings else "it fits"


def _row(step: Step) -> list[str]:
    flops = sum(step.flops.values())
    return [
        step.name,
        count(step.tokens[0]) if flops else "",
        count(step.tokens[1]) if flops else "",
        f"{flops:.2e}" if flops else "",
        f"{step.memory.total / GIB:.2f}" if step.memory else "",
        duration(step.seconds),
        f"{step.hours:.3g}" if flops else "",
        f"{step.sandbox_seconds / 3600:.3g}" if step.sandbox_seconds else "",
        size(step.kept),
        size(step.passing),
    ]


def _memory(steps: Sequence[Step]) -> Iterator[str]:
    """A line for each kind of stage, that of its largest."""
    largest: dict[str, Step] = {}
    for step in steps:
        if step.memory and (
            step.stage not in largest or step.memory.total > largest[step.stage].memory.total  # type: ignore[union-attr]
        ):
            largest[step.stage] = step
    terms = list(
        dict.fromkeys(term for step in largest.values() if step.memory for term in step.memory.terms)
    )
    rows = []
    for step in largest.values():
        assert step.memory is not None
        found = step.memory.terms
        cells = [f"{found[term] / GIB:.2f}" if found.get(term) else "" for term in terms]
        host = f"{step.memory.host / GIB:.1f}" if step.memory.host else ""
        rows.append([step.name, *cells, f"{step.memory.total / GIB:.2f}", host])
    yield from _table(["stage", *terms, "total", "host"], rows)


def _table(head: list[str], rows: list[list[str]]) -> Iterator[str]:
    used = [at for at in range(len(head)) if any(row[at] for row in rows)]
    widths = [max(len(line[at]) for line in [head, *rows]) for at in range(len(head))]
    for line in [head, *rows]:
        cells = [line[at].ljust(widths[at]) if at == 0 else line[at].rjust(widths[at]) for at in used]
        yield "  ".join(cells).rstrip()


def count(number: float) -> str:
    """1234567 as 1.23M."""
    for unit, least in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= least:
            return f"{number / least:.3g}{unit}"
    return f"{number:.0f}"


def size(number: float) -> str:
    """Bytes with a unit; empty for none."""
    for unit, least in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if number >= least:
            return f"{number / least:.1f} {unit}"
    return f"{number:.0f} B" if number else ""


def duration(seconds: float) -> str:
    """Seconds, minutes, hours or days; empty for none."""
    for unit, least in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= least:
            return f"{seconds / least:.1f} {unit}"
    return f"{seconds:.1f} s" if seconds else ""
