"""The commands about runs and their store: `selftrain runs`, `show`, `compare`, `why`, `gc`."""

import argparse
import json
from pathlib import Path
from typing import Any

from flows.options import add_command, add_number
from selftrain.errors import UsageError
from selftrain.units import count_of


def add_runs(commands: Any) -> None:
    """Add `selftrain runs`, `show` and `compare`."""
    runs = add_command(commands, "runs", runs_command, "list the runs in a folder")
    runs.add_argument("folder", nargs="?", default="runs", help="where runs are (default: runs)")

    show = add_command(commands, "show", show_command, "the stages of a run: keys, seconds, figures")
    show.add_argument("run", help="a run's folder, or its name in runs/")

    compare = add_command(
        commands,
        "compare",
        compare_command,
        "several runs (seeds) as one, or several methods side by side: figures and paired differences",
        "Runs whose configs differ only in the seed are pooled. Where they differ otherwise, each method is "
        "compared with that of the first run.",
    )
    compare.add_argument("runs", nargs="+", metavar="RUN", help="folders of finished runs, or names in runs/")
    compare.add_argument("--json", action="store_true", help="print JSON")


def add_store(commands: Any) -> None:
    """Add `selftrain why` and `selftrain gc`."""
    about = "how a key differs from that of the nearest earlier artifact of its stage"
    why = add_command(commands, "why", why_command, about)
    why.add_argument(
        "key", help="a key or its first digits, or a stage's name such as rm-2 (see `show`, `run --dry-run`)"
    )
    why.add_argument("--run", help="the run that has the stage (default: the store's newest that has it)")
    why.add_argument(
        "--store",
        help="the store's folder or URL (default: the run's, else that of SELFTRAIN_STORE, else runs/store)",
    )

    gc = add_command(
        commands,
        "gc",
        gc_command,
        "remove artifacts that no run needs any more from a store",
        "Keeps the artifacts of the newest finished runs of each name, of unfinished runs that were at work within a "
        "week, and of the registry, with all their inputs, and what is younger than an hour; removes other artifacts, superseded and abandoned attempts, old builds and cached copies.",
    )
    gc.add_argument("store", help="the store's folder or URL")
    add_number(gc, "--keep-runs", 5, "N", "number of newest finished runs of each name to keep")
    gc.add_argument("--dry-run", action="store_true", help="only print what would be removed")


def runs_command(options: argparse.Namespace) -> int:
    """`selftrain runs`."""
    from selftrain.store.runfile import NAME, followed, link_of, read_run, state, unfinished

    folder = Path(options.folder)
    if (folder / NAME).is_file():
        raise UsageError(
            f"{folder} is the folder of one run; expected a folder that holds runs. `selftrain show {folder}` shows this run"
        )
    if folder != Path("runs") and not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; expected one that holds the folders of runs")
    found = [path.parent for path in sorted(folder.glob(f"*/{NAME}")) if followed(path.parent) == path.parent]
    if not found:
        print(f"no runs in {options.folder}; start one with: selftrain run demo")
    width = max(24, *(len(path.name) for path in found)) if found else 24
    for path in found:
        try:
            run = read_run(path)
        except UsageError as error:
            print(f"{path.name:<{width}} {'damaged':<11} {error}")
            continue
        open_ = unfinished(run)
        done = len(run["stages"]) - len(open_)
        failed = run.get("failed")
        why = f"  ended in {', '.join(open_)}: {failed.splitlines()[0][:100]}" if failed else ""
        link = link_of(path)
        newest = f"  newest: {link.name}" if link != path and followed(link) == path else ""
        print(
            f"{path.name:<{width}} {state(run):<11} {run['seconds']:>8.0f} s  rounds {run['config'].get('rounds', '?')}  {count_of(done, 'stage')}"
            f"{newest}{why}"
        )
    return 0


def show_command(options: argparse.Namespace) -> int:
    """`selftrain show`."""
    from selftrain.stage import ArtifactRef
    from selftrain.store.runfile import find_run, read_run, state, unfinished
    from selftrain.store.store import Store

    folder = find_run(options.run)
    run = read_run(folder)
    store = Store(run["store"])
    print(f"{'stage':<24} {'key':<34} {'seconds':>9}  figures")
    open_ = unfinished(run)
    for name, ref in run["stages"].items():
        manifest = store.manifest(ArtifactRef(ref["stage"], ref["key"]))
        if manifest is None:
            missing = {"failed": "failed", "unfinished": "not finished"} if name in open_ else {}
            print(f"{name:<24} {ref['key']:<34} {'-':>9}  {missing.get(state(run), 'not in the store')}")
            continue
        figures = dict(manifest["metrics"])
        if ref["stage"] == "prepare":  # its metrics are groups of counts: show each count by itself
            for name_of_group in ("problems", "left_out", "checks"):
                figures |= figures.pop(name_of_group, {})
        figures = {k: v for k, v in figures.items() if not isinstance(v, list | dict)}
        text = "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in figures.items())
        print(f"{name:<24} {ref['key']:<34} {manifest['seconds']:>9.1f}  {text}")
    if run["finished"] and (folder / "report.json").is_file():
        from selftrain.report.terminal import summary_table

        try:
            report = json.loads((folder / "report.json").read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"{folder / 'report.json'}: {error}; run it again") from error
        print("\n" + summary_table(report))
    if run.get("failed"):
        print(f"\nended{' in ' * bool(open_)}{', '.join(open_)}: {run['failed']}")
    elif not run["finished"]:
        print(
            "\nnot finished: the run is still going, or was interrupted; the same `selftrain run` command resumes it"
        )
    return 0


def compare_command(options: argparse.Namespace) -> int:
    """`selftrain compare`."""
    from selftrain.evaluation.compare import compare_runs

    found = compare_runs(options.runs)
    if options.json:
        print(json.dumps(found, indent=1))
        return 0
    if "rows" in found:
        from selftrain.report.study import markdown

        print(markdown(found, "comparison of methods", {}))
        return 0
    from selftrain.report.terminal import comparison_table, pool_table

    print(pool_table(found["pools"]))
    print()
    print(comparison_table(found["comparisons"]))
    return 0


def why_command(options: argparse.Namespace) -> int:
    """`selftrain why`."""
    from selftrain.config import default_store
    from selftrain.store.runfile import find_run, read_run
    from selftrain.store.store import find_store
    from selftrain.store.why import explain

    run = read_run(find_run(options.run)) if options.run else None
    store = find_store(options.store or (run["store"] if run else default_store()))
    print(explain(store, options.key, run and run["stages"]))
    return 0


def gc_command(options: argparse.Namespace) -> int:
    """`selftrain gc`."""
    from selftrain.store.garbage import collect
    from selftrain.store.store import Store

    collect(Store(options.store), options.keep_runs, options.dry_run, print)
    return 0
