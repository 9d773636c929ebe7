"""The commands `selftrain run`, `selftrain plan` and `selftrain node`."""

import argparse
import json
import math
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from flows.local import run_here
from flows.options import add_command, add_list, add_number
from selftrain.errors import UsageError
from selftrain.launch.ending import ENDING
from selftrain.units import count_of

FROM_SCRATCH = (
    "the model starts from random weights, and learns from these answers alone: it solves hardly any problem that is not like many "
    "of them, and without a right program there are no pairs, and the run ends in mine-1"
)
"""What problems from outside mean for a model that is not pretrained."""


def add_run(commands: Any) -> None:
    """Add `selftrain run`."""
    run = add_command(commands, "run", run_command, "run the whole loop of a config, or resume it")
    _add_config(run)
    run.add_argument(
        "--out",
        help="folder of the run (default: one of its own, runs/NAME.ID; runs/NAME is a link to the newest)",
    )
    run.add_argument(
        "--dry-run", action="store_true", help="print the stages with their keys and whether they are cached"
    )
    run.add_argument(
        "--champion",
        action="store_true",
        help="continue from the champion in the store: train one more round, promote its reranker if it is better",
    )


def add_plan(commands: Any) -> None:
    """Add `selftrain plan`."""
    plan = add_command(
        commands,
        "plan",
        plan_command,
        "what a run will need: parameters, memory, tokens, FLOPs, hours, storage",
        "Works out what every stage of a config will need, and warns where it cannot fit. No weights are "
        "loaded and no GPU is used. A rate is the median (of two the higher) of the newest three finished runs in the config's store on the same kind of device "
        "with models of about the same size; without such a run they are assumed from the device's peak, and the plan says so. "
        "Exit code: 0 it fits, 1 it does not (the warnings say what helps), 2 wrong usage.",
    )
    _add_config(plan)
    _add_hardware(plan)
    plan.add_argument(
        "--problems", type=_count, metavar="N", help="plan for N problems to sample for, in each language"
    )
    plan.add_argument("--samples", type=_count, metavar="N", help="candidates of each of them (sample.rl)")
    plan.add_argument(
        "--machines",
        type=_count,
        metavar="N",
        help="also hours on 1, 2, 4, ... N machines that share sampling and execution (runtime.dask)",
    )
    plan.add_argument("--html", metavar="FILE", help="also write the plan as a page")
    plan.add_argument("--json", action="store_true", help="print JSON")


def _add_hardware(plan: argparse.ArgumentParser) -> None:
    """The arguments that describe the machines."""
    plan.add_argument("--gpus", type=int, metavar="N", help="plan for N GPUs (default: what runtime says)")
    plan.add_argument(
        "--gpu-memory",
        type=_positive,
        metavar="GIB",
        help="memory of each GPU, or of each process on CPU (default: 80; on CPU the machine's, shared out)",
    )
    training = "share of the peak that training reaches"
    sampling = "share of the peak that sampling token by token reaches"
    add_number(plan, "--utilisation", 0.4, "U", training, kind=_share)
    add_number(plan, "--sampling-utilisation", 0.05, "U", sampling, kind=_share)
    plan.add_argument(
        "--tflops",
        type=_positive,
        metavar="T",
        help="peak of each GPU or process, TFLOP/s, in place of the rates of finished runs (without any: 312, an A100 in "
        "bf16; on CPU 0.15 a thread)",
    )


def add_node(commands: Any) -> None:
    """Add `selftrain node`."""
    about = "lend this machine to the training of a run on another machine"
    node = add_command(commands, "node", node_command, about)
    node.add_argument("store", help="the run's store, under the same path as on the other machine")


def _add_config(command: argparse.ArgumentParser) -> None:
    """The arguments that name a config and change it."""
    command.add_argument("config", help="a YAML file, or the name of a shipped config: demo, ...")
    add_list(command, "--set", "A.B=VALUE", "override a setting (may be repeated)", dest="settings")
    command.add_argument("--rounds", type=int, help="rounds of reward model and PPO")


def run_command(options: argparse.Namespace) -> int:
    """`selftrain run`."""
    from selftrain.configfile import parse_overrides

    overrides = parse_overrides(options.settings)
    if options.dry_run:
        return dry_run(options, overrides)
    ENDING.catch()
    print(run_here(options.config, overrides, options.rounds, options.out, options.champion))
    return 0


def dry_run(options: argparse.Namespace, overrides: dict[str, Any]) -> int:
    """`selftrain run --dry-run`: prints the stages and their keys. It builds nothing and imports neither torch nor Prefect."""
    from flows.method import method
    from flows.session import open_run
    from selftrain.store.runfile import link_of
    from tasks.run import Run

    run, folder = open_run(Run, options.config, overrides, options.rounds, options.out)
    foreign = None
    if options.champion:
        from flows.champion import plan_next, prepared

        attempt, _, _ = plan_next(run)
        run, foreign = prepared(run, attempt)
        if attempt.nothing:
            print(f"nothing to do: {attempt.nothing}")
    method(run, foreign)
    for step in run.steps.values():
        print(f"{'cached' if step.name in run.cached else 'to do ':<7} {step.label:<32} {step.ref}")
    print(
        f"\n{len(run.cached)} of {count_of(len(run.steps), 'stage')} are cached in {run.store.url}; the report goes to {link_of(folder)}/report.html"
    )
    _tell_problems(run.config)
    return 0


def _tell_problems(config: Any) -> None:
    """Read the problems, if they are local files, and print their counts and leaks. Raises DataError as the run would."""
    from selftrain.problems.checks import overview
    from selftrain.problems.read import check_filled, find_problems

    source = config.problems
    parts = getattr(source, "parts", (source,))
    if source.source == "bank":
        return
    if remote := [hub for part in parts if (hub := getattr(part, "hub", None)) and not Path(hub).is_dir()]:
        print(
            f"\nproblems: not read, they are on the hub ({', '.join(remote)}); stage `prepare` checks them for leaks"
        )
        return
    found = find_problems(source.model_copy(update={"seed": source.seed + config.seed}))
    check_filled(found, source)
    print("\nproblems (stage `prepare` also runs their programs and checks the results):")
    for line in overview(found):
        print(f"  {line}")
    if config.model.base is None:
        print(f"  {FROM_SCRATCH}; name a pretrained one in model.base")


def plan_command(options: argparse.Namespace) -> int:
    """`selftrain plan`; exit code 1 if the run would not fit."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from flows.method import graph
    from flows.session import open_store
    from selftrain.configfile import load_config, parse_overrides
    from selftrain.plan.plan import Hardware, Workload, make_plan
    from selftrain.plan.table import page, text

    overrides = parse_overrides(options.settings)
    if options.rounds is not None:
        overrides["rounds"] = options.rounds
    if options.samples is not None:
        overrides["sample.rl"] = options.samples
    hardware = Hardware(
        gpus=options.gpus,
        memory_gib=options.gpu_memory,
        utilisation=options.utilisation,
        sampling_utilisation=options.sampling_utilisation,
        tflops=options.tflops,
    )
    workload = Workload(options.problems, options.machines)
    config = load_config(options.config, overrides)
    store = None if options.tflops else lambda: open_store(config)
    plan = make_plan(config, hardware, graph, workload, store)
    if options.html is not None:
        _write(options.html, page(plan))
    print(json.dumps(plan.as_json(), indent=1) if options.json else text(plan))
    return 1 if plan.warnings else 0


def node_command(options: argparse.Namespace) -> int:
    """`selftrain node`: runs until it is interrupted."""
    import signal

    from selftrain.launch.nodes import serve
    from selftrain.store.store import Store

    store = Store(options.store)
    if not store.is_local or not Path(store.root).is_dir():
        raise UsageError(
            f"{options.store}: no such folder on this machine; expected the run's store on a shared file system, under the same "
            "path as on the first machine (`mkdir -p` it if no run has made it yet)"
        )
    # Raised as KeyboardInterrupt, these signals let `serve` end the node's child processes and inform the first machine.
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        serve(store.local / "jobs", lambda line: print(line, flush=True))
    except KeyboardInterrupt:
        print("selftrain: interrupted; this machine takes no more jobs", file=sys.stderr)
    return 0


def _count(text: str) -> int:
    """A whole number, at least 1."""
    if not text.isdecimal() or len(text) > 15 or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number, at least 1, got {text!r:.80}")
    return int(text)


def _positive(text: str) -> float:
    """A number above 0."""
    with suppress(ValueError):
        if 0 < (number := float(text)) < math.inf:
            return number
    raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r:.80}")


def _share(text: str) -> float:
    """A number above 0, at most 1."""
    if (number := _positive(text)) > 1:
        raise argparse.ArgumentTypeError(f"expected a share above 0 and at most 1, got {text!r:.80}")
    return number


def _write(name: str, text: str) -> None:
    try:
        Path(name).write_text(text, "utf-8")
    except OSError as error:
        raise UsageError(f"{name}: cannot be written: {error}") from error
