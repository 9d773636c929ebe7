"""The `selftrain` command. Nothing heavy is imported before a command needs it."""

import argparse
import gc
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flows import cli_champion
from flows.local import known, run_here
from selftrain.errors import UsageError
from selftrain.launch.ending import ENDING

EXAMPLES = """\
examples:
  selftrain run demo                                    the whole loop on tiny models, report in runs/demo/
  selftrain run demo --dry-run                          its stages, their keys, and which are cached
  selftrain run demo --set seed=2 --out runs/demo-2     with another seed
  selftrain run my.yaml --rounds 3                      your own config
  selftrain plan my.yaml --gpus 8 --gpu-memory 80       memory, FLOPs, hours and storage that it will need
  selftrain plan my.yaml --problems 1000 --samples 100 --machines 16 --html plan.html
                                                        hours on 1, 2, 4, ... 16 machines, for that many problems
  selftrain show runs/demo                              what a run made, and its figures
  selftrain compare runs/demo runs/demo-2               seeds together, with intervals over both
  selftrain why rm-2                                    how its key, or one such as 4f2a9c01, differs from the nearest one
  selftrain gc runs/store --keep-runs 3 --dry-run       what no run needs any more, and its size
  selftrain run prod --champion                         one round more than the champion has; promoted if better
  selftrain champion                                    who is champion, since when and why
  selftrain node /shared/store                          lend this machine to a run with runtime.nodes > 1
  selftrain rank runs/demo --prompt p.txt a.py b.py     scores of completions, and the pick
  selftrain rank runs/demo --example                    the same for a problem of the run's own, with verdicts
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit code: 0 done, 1 the run failed, 2 wrong usage or data."""
    options = parser().parse_args(arguments)
    code = 1
    try:
        code = _carry_out(options)
    finally:
        ENDING.over(code)
    return code


def _carry_out(options: argparse.Namespace) -> int:
    try:
        return int(options.command(options))
    except BrokenPipeError:
        return 0
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) or ENDING.signal is not None:
            return ENDING.interrupted()
        ours = known(error)
        if ours is None:
            raise
        print(f"selftrain: {ours}", file=sys.stderr)
        return 2 if getattr(ours, "exit_code", 1) == 2 else 1  # the sandbox's own failure is the run's


class Version(argparse.Action):
    """`selftrain --version`."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Print it and exit."""
        from importlib.metadata import PackageNotFoundError, version

        try:
            found = version("selftrain")
        except PackageNotFoundError:
            found = "(not installed)"
        print(f"selftrain {found}, Python {sys.version.split()[0]}, {Path(__file__).parent.parent}")
        parser.exit()


class Instead(argparse.Action):
    """An option that stands in the place of `others`, which are needed without it."""

    def __init__(self, *args: Any, others: Sequence[argparse.Action] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.others = others

    def __call__(self, _: Any, namespace: argparse.Namespace, value: Any, option: Any = None) -> None:
        """Keep its value; the others are needed no more."""
        setattr(namespace, self.dest, value)
        for other in self.others:
            other.required = False


def parser() -> argparse.ArgumentParser:
    """The command line."""
    root = argparse.ArgumentParser(
        prog="selftrain",
        description="Trains a reranker for generated code by iterative self-training, and uses it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    root.add_argument("--version", action=Version, nargs=0, help="print the version and exit")
    commands = root.add_subparsers(title="commands", required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run the whole loop of a config; goes on where it was stopped")
    _add_config(run)
    run.add_argument("--out", help="folder of the run (default: runs/NAME)")
    run.add_argument(
        "--dry-run", action="store_true", help="print the stages with their keys and whether they are cached"
    )
    run.add_argument(
        "--champion",
        action="store_true",
        help="go on from the champion in the store: train one round more, promote what beats it",
    )
    run.set_defaults(command=run_command)

    plan = commands.add_parser(
        "plan",
        help="what a run will need: parameters, memory, tokens, FLOPs, hours, storage",
        description="Works out what every stage of a config will need, and warns where it cannot fit. No weights are "
        "loaded and no GPU is used. Exit code: 0 it fits, 1 it does not (the warnings say what helps), 2 wrong usage.",
    )
    _add_config(plan)
    plan.add_argument("--gpus", type=int, metavar="N", help="plan for N GPUs (default: what runtime says)")
    plan.add_argument(
        "--gpu-memory",
        type=float,
        metavar="GIB",
        help="memory of each GPU, or of each process on CPU (default: 80; on CPU the machine's, shared out)",
    )
    plan.add_argument(
        "--utilisation",
        type=float,
        default=0.4,
        metavar="U",
        help="share of the peak that training reaches (default: 0.4)",
    )
    plan.add_argument(
        "--sampling-utilisation",
        type=float,
        default=0.05,
        metavar="U",
        help="share of the peak that sampling token by token reaches (default: 0.05)",
    )
    plan.add_argument(
        "--tflops",
        type=float,
        metavar="T",
        help="peak of each GPU or process, TFLOP/s (default: 312, an A100 in bf16; on CPU 0.15 a thread)",
    )
    plan.add_argument(
        "--calibrate",
        action="store_true",
        help="measure this machine instead, by running the stages for about half a minute",
    )
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
    plan.set_defaults(command=plan_command)

    runs = commands.add_parser("runs", help="list the runs in a folder")
    runs.add_argument("folder", nargs="?", default="runs", help="where runs are (default: runs)")
    runs.set_defaults(command=runs_command)

    show = commands.add_parser("show", help="what a run made: stages, keys, seconds, figures")
    show.add_argument("run", help="a run's folder, or its name in runs/")
    show.set_defaults(command=show_command)

    compare = commands.add_parser(
        "compare", help="several runs (seeds) as one: figures and paired differences"
    )
    compare.add_argument("runs", nargs="+", metavar="RUN", help="folders of finished runs, or names in runs/")
    compare.add_argument("--json", action="store_true", help="print JSON")
    compare.set_defaults(command=compare_command)

    why = commands.add_parser(
        "why", help="why a key is what it is: differences to the nearest earlier artifact of its stage"
    )
    why.add_argument(
        "key", help="a key or its first digits, or a stage's name such as rm-2 (see `show`, `run --dry-run`)"
    )
    why.add_argument("--run", help="the run that has the stage (default: the store's newest that has it)")
    why.add_argument("--store", help="the store's folder or URL (default: the run's, else runs/store)")
    why.set_defaults(command=why_command)

    gc = commands.add_parser(
        "gc",
        help="remove from a store what no run needs any more",
        description="Keeps what the newest finished runs of each name, unfinished runs and the registry need, with all that "
        "it was made from; removes other artifacts, superseded and abandoned attempts, old builds and copies.",
    )
    gc.add_argument("store", help="the store's folder or URL")
    gc.add_argument(
        "--keep-runs", type=int, default=5, metavar="N", help="newest finished runs of each name (default: 5)"
    )
    gc.add_argument("--dry-run", action="store_true", help="only print what would be removed")
    gc.set_defaults(command=gc_command)

    node = commands.add_parser(
        "node", help="let this machine take part in the training of a run that another machine carries out"
    )
    node.add_argument("store", help="the run's store, under the path that the other machine has it under")
    node.set_defaults(command=node_command)

    cli_champion.add_commands(commands)

    rank = commands.add_parser(
        "rank",
        help="score completions of a prompt and pick the best",
        description="Ranks completions of a prompt in the way that the run's validation chose: by its last reranker's score, "
        "or by that and the log-probability under its generator. Says where the texts are unlike what both were trained on.",
    )
    rank.add_argument(
        "run", help="a run's folder, or its name in runs/; or a reranker's folder: its score alone"
    )
    prompt = rank.add_argument("--prompt", required=True, metavar="FILE", help="file with the prompt")
    candidates = rank.add_argument(
        "candidates", nargs="+", metavar="CANDIDATE", help="files with completions of the prompt"
    )
    rank.add_argument(
        "--by", metavar="WAY", help="another way: rm-2 is the reranker alone, rm-2+logprob both"
    )
    rank.add_argument(
        "--example",
        nargs="?",
        const="",
        metavar="PROBLEM",
        action=Instead,
        others=(prompt, candidates),
        help="rank a test problem of the run instead (default: the first that some programs solve and some do not), with "
        "the sandbox's verdicts",
    )
    rank.add_argument("--json", action="store_true", help="print JSON")
    rank.set_defaults(command=rank_command)
    return root


def _add_config(command: argparse.ArgumentParser) -> None:
    """The arguments that name a config and change it."""
    command.add_argument("config", help="a YAML file, or the name of a shipped config: demo, ...")
    command.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="A.B=VALUE",
        help="override a setting (again and again)",
    )
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
    """`selftrain run --dry-run`: nothing is built, and neither torch nor Prefect is imported."""
    from flows.method import method
    from flows.session import open_run
    from tasks.run import Run

    run, folder = open_run(Run, options.config, overrides, options.rounds, options.out)
    beside = None
    if options.champion:
        from flows.champion import plan_next, prepared

        attempt, _, _ = plan_next(run)
        run, beside = prepared(run, attempt)
        if attempt.nothing:
            print(f"nothing to do: {attempt.nothing}")
    method(run, beside)
    for step in run.steps.values():
        print(f"{'cached' if step.name in run.cached else 'to do ':<7} {step.label:<32} {step.ref}")
    print(
        f"\n{len(run.cached)} of {len(run.steps)} stages are cached in {run.store.url}; the report goes to {folder}/report.html"
    )
    _tell_problems(run.config)
    return 0


def _tell_problems(config: Any) -> None:
    """Print what a look at the problems tells, where they are files at hand. Raises DataError as the run would."""
    from selftrain.problems.checks import overview
    from selftrain.problems.read import find_problems

    source = config.problems
    parts = getattr(source, "parts", (source,))
    if source.source == "bank":
        return
    if remote := [hub for part in parts if (hub := getattr(part, "hub", None)) and not Path(hub).is_dir()]:
        print(
            f"\nproblems: not looked at, they are on the hub ({', '.join(remote)}); `prepare` tells of leaks"
        )
        return
    found = find_problems(source.model_copy(update={"seed": source.seed + config.seed}))
    print("\nproblems (what only running programs tells comes in `prepare`):")
    for line in overview(found):
        print(f"  {line}")


def plan_command(options: argparse.Namespace) -> int:
    """`selftrain plan`; 1 where the run would not fit."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from selftrain.configfile import load_config, parse_overrides
    from selftrain.plan.page import page
    from selftrain.plan.plan import Hardware, Workload, make_plan
    from selftrain.plan.table import text

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
    plan = make_plan(load_config(options.config, overrides), hardware, options.calibrate, workload)
    if options.html is not None:
        _write(options.html, page(plan))
    print(json.dumps(plan.as_json(), indent=1) if options.json else text(plan))
    return 1 if plan.warnings else 0


def runs_command(options: argparse.Namespace) -> int:
    """`selftrain runs`."""
    from selftrain.store.runfile import NAME, last_stage, read_run, state

    folder = Path(options.folder)
    if (folder / NAME).is_file():
        raise UsageError(f"{folder}: that is a run; `selftrain show {folder}` shows it")
    if folder != Path("runs") and not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; expected one that holds the folders of runs")
    found = sorted(folder.glob(f"*/{NAME}"))
    if not found:
        print(f"no runs in {options.folder}; start one with: selftrain run demo")
    for path in found:
        try:
            run = read_run(path.parent)
        except UsageError as error:
            print(f"{path.parent.name:<24} {'damaged':<11} {error}")
            continue
        last = last_stage(run)
        done = len(run["stages"]) - (not run["finished"] and last is not None)
        why = f"  ended in {last}: {run['failed'].splitlines()[0][:100]}" if run.get("failed") else ""
        print(
            f"{path.parent.name:<24} {state(run):<11} {run['seconds']:>8.0f} s  rounds {run['config']['rounds']}  {done} stages{why}"
        )
    return 0


def show_command(options: argparse.Namespace) -> int:
    """`selftrain show`."""
    from selftrain.stage import ArtifactRef
    from selftrain.store.runfile import find_run, last_stage, read_run, state
    from selftrain.store.store import Store

    folder = find_run(options.run)
    run = read_run(folder)
    store = Store(run["store"])
    print(f"{'stage':<24} {'key':<34} {'seconds':>9}  figures")
    last = last_stage(run)
    for name, ref in run["stages"].items():
        manifest = store.manifest(ArtifactRef(ref["stage"], ref["key"]))
        if manifest is None:
            missing = {"failed": "failed", "unfinished": "not finished"} if name == last else {}
            print(f"{name:<24} {ref['key']:<34} {'-':>9}  {missing.get(state(run), 'not in the store')}")
            continue
        figures = dict(manifest["metrics"])
        if ref["stage"] == "prepare":  # its counts are what there is to know of one's data
            for name_of_group in ("problems", "left_out", "checks"):
                figures |= figures.pop(name_of_group, {})
        figures = {k: v for k, v in figures.items() if not isinstance(v, list | dict)}
        text = "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in figures.items())
        print(f"{name:<24} {ref['key']:<34} {manifest['seconds']:>9.1f}  {text}")
    if run["finished"] and (folder / "report.json").is_file():
        from selftrain.report import summary_table

        print("\n" + summary_table(json.loads((folder / "report.json").read_text())))
    if run.get("failed"):
        print(f"\nended{f' in {last}' if last else ''}: {run['failed']}")
    elif not run["finished"]:
        print(
            "\nnot finished: it goes on somewhere, or was ended; the same `selftrain run` goes on from here"
        )
    return 0


def compare_command(options: argparse.Namespace) -> int:
    """`selftrain compare`."""
    from selftrain.evaluation.compare import compare_runs

    evaluation = compare_runs(options.runs)
    if options.json:
        print(json.dumps(evaluation, indent=1))
        return 0
    from selftrain.report import comparison_table, pool_table

    print(pool_table(evaluation["pools"]))
    print()
    print(comparison_table(evaluation["comparisons"]))
    return 0


def why_command(options: argparse.Namespace) -> int:
    """`selftrain why`."""
    from selftrain.store.runfile import find_run, read_run
    from selftrain.store.store import find_store
    from selftrain.store.why import explain

    run = read_run(find_run(options.run)) if options.run else None
    store = find_store(options.store or (run["store"] if run else "runs/store"))
    print(explain(store, options.key, run and run["stages"]))
    return 0


def gc_command(options: argparse.Namespace) -> int:
    """`selftrain gc`."""
    from selftrain.store.garbage import collect
    from selftrain.store.store import Store

    collect(Store(options.store), options.keep_runs, options.dry_run, print)
    return 0


def node_command(options: argparse.Namespace) -> int:
    """`selftrain node`: ends when it is interrupted."""
    import signal

    from selftrain.launch.nodes import serve
    from selftrain.store.store import Store

    store = Store(options.store)
    if not store.is_local or not Path(store.root).is_dir():
        raise UsageError(
            f"{options.store}: no such folder on this machine; expected the run's store, on a file system that all machines "
            "share, under the path that the first machine has it under (`mkdir -p` it where no run has made it yet)"
        )
    # So that what it started ends with it, and the other machine is told.
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        serve(store.local / "jobs", lambda line: print(line, flush=True))
    except KeyboardInterrupt:
        print("selftrain: this machine takes part in no more jobs", file=sys.stderr)
    return 0


def rank_command(options: argparse.Namespace) -> int:
    """`selftrain rank`."""
    gc.disable()  # of what is imported nothing is garbage; looking for it takes a fifth of the start
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if options.example is not None and (options.prompt or options.candidates):
        raise UsageError("--example has a prompt and candidates of its own; expected one or the other")
    from selftrain.rerank.picker import Picked, Picker, example
    from selftrain.rerank.reranker import Reranker

    verdicts: Sequence[str] = ()
    if options.example is None:
        prompt, names = _read(options.prompt), options.candidates
        texts = [_read(name) for name in names]
    else:
        found = example(options.run, options.example)
        prompt, texts, verdicts = found.prompt, list(found.candidates), found.verdicts
        names = [f"program {number}" for number in range(1, len(texts) + 1)]
    picker = None
    if (Path(options.run) / "config.json").is_file():  # a reranker by itself
        picked = Picked(Reranker.load(options.run).rank(prompt, texts).scores)
    else:
        picker = Picker.load(options.run, options.by)
        picked = picker.rank(prompt, texts)
    if options.json:
        print(json.dumps(_ranked(picker, picked, names, verdicts), indent=1))
    else:
        if options.example is not None:
            print(f"{found.id}\n\n{prompt}")
        for place, at in enumerate(picked.order):
            verdict = f"  {verdicts[at]:<16}" if verdicts else ""
            print(f"{picked.scores[at]:>9.4f}{verdict}  {names[at]}{'   <- pick' if place == 0 else ''}")
            if verdicts:
                print(_indented(texts[at]))
    if picker is not None:
        print(f"selftrain: by {picker.way}: {picker.told}", file=sys.stderr)
        if options.example is not None:
            print(f"selftrain: {picker.solved}", file=sys.stderr)
        if picked.far:
            print(
                f"selftrain: these texts are unlike what {picker.way} was trained on, {picker.trained_on}: their mean "
                f"log-probability is {picked.mean_logprob:.2f} nats a token under the run's generator, and on none of the run's "
                f"own test problems below {picked.lowest:.2f}. The order says little; `selftrain rank {options.run} --example` "
                "shows one of the run's own",
                file=sys.stderr,
            )
    return 0


def _ranked(picker: Any, picked: Any, names: Sequence[str], verdicts: Sequence[str]) -> dict[str, Any]:
    """A ranking as JSON values."""
    rows: list[dict[str, Any]] = [
        {"candidate": name, "score": score} for name, score in zip(names, picked.scores, strict=True)
    ]
    for at, row in enumerate(rows):
        if picked.logprobs is not None:
            row["mean_logprob"] = picked.logprobs[at]
        if verdicts:
            row["verdict"] = verdicts[at]
    about = {} if picker is None else {"by": picker.way, "far": picked.far}
    return {"pick": names[picked.best], **about, "candidates": rows}


def _indented(text: str) -> str:
    return "".join(f"           | {line}\n" for line in text.rstrip().splitlines())


def _count(text: str) -> int:
    """A whole number, at least 1."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _write(name: str, text: str) -> None:
    try:
        Path(name).write_text(text, "utf-8")
    except OSError as error:
        raise UsageError(f"{name}: cannot be written: {error}") from error


def _read(name: str) -> str:
    try:
        return Path(name).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{name}: cannot be read as text: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
