"""The `selftrain` command line. Heavy libraries are imported only by the commands that need them."""

import argparse
import atexit
import errno
import gc
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TextIO

from flows import (
    cli_champion,
    cli_check,
    cli_evaluate,
    cli_export,
    cli_generate,
    cli_inspect,
    cli_new,
    cli_rank,
    cli_run,
    cli_serve,
    cli_store,
    cli_studio,
    cli_study,
)
from flows.local import known
from selftrain.errors import RunError, UsageError
from selftrain.launch.ending import ENDING

EXAMPLES = """\
examples:
  selftrain run demo                                    the whole loop on tiny models, report in runs/demo/
  selftrain run demo --dry-run                          its stages, their keys, and which are cached
  selftrain run demo --set seed=2 --out runs/demo-2     with another seed
  selftrain new my.yaml                                 a config of your own, from questions or flags, with a plan
  selftrain run my.yaml --rounds 3                      your own config
  selftrain plan my.yaml --gpus 8 --gpu-memory 80       memory, FLOPs, hours and storage that it will need
  selftrain plan my.yaml --problems 1000 --samples 100 --machines 16 --html plan.html
                                                        hours on 1, 2, 4, ... 16 machines, for that many problems
  selftrain runs                                        all runs; runs/demo is the newest of demo
  selftrain show runs/demo                              the stages of a run and their figures
  selftrain compare runs/demo runs/demo-2               seeds together, with intervals over both
  selftrain study evidence --dry-run                    variants x seeds as runs that share stages, and the time they will take
  selftrain why rm-2                                    how its key (or one given as 4f2a9c01) differs from the nearest earlier one
  selftrain gc runs/store --keep-runs 3 --dry-run       artifacts that no run needs any more, and their size
  selftrain run prod --champion                         train one round more than the champion has; promote it if it is better
  selftrain champion                                    who is champion, since when and why
  selftrain node /shared/store                          lend this machine to a run with runtime.nodes > 1
  selftrain rank runs/demo --prompt p.txt a.py b.py     scores of completions, and the pick
  selftrain rank runs/demo --example                    the same for a test problem of the run, with verdicts
  selftrain rank runs/demo --batch in.jsonl out.jsonl   many problems; killed, it goes on
  selftrain best-of runs/demo --prompt p.txt --n 8      eight programs of the run's generator, and the best of them
  selftrain evaluate written.jsonl --reranker runs/demo how good each way to pick is, for programs that any model wrote
  selftrain check-data mine.jsonl                       faults in problems, before anything is trained
  selftrain inspect runs/demo PROBLEM#3                 one candidate's history: verdict, scores, pairs, picks
  selftrain serve runs/demo                             ranks over HTTP, as Cohere, Jina, vLLM and TEI do
  selftrain studio runs/demo                            a page to rank programs by hand
"""


REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ENOTDIR, errno.ELOOP}
"""errno values by which the system refuses a path that a user gave, or a file in it: no fault of the program."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0 success, 1 the run failed, 2 wrong usage or data."""
    # Else the collector visits all of torch and transformers once more at exit, which takes a second.
    atexit.register(gc.freeze)
    _open_streams()
    options = parser().parse_args(arguments)
    code = 1
    try:
        code = _carry_out(options)
    finally:
        ENDING.over(code)
    return code


def _nowhere(mode: Literal["r", "w"] = "w") -> TextIO:
    """A stream that swallows what is written to it, or is empty."""
    return open(os.devnull, mode, encoding="utf-8")


def _open_streams() -> None:
    """Let a stream that the caller has closed swallow what is printed, or be empty, and show characters that its encoding does not
    have by code."""
    if sys.stdin is None:
        sys.stdin = _nowhere("r")
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, _nowhere())
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _carry_out(options: argparse.Namespace) -> int:
    try:
        code = int(options.command(options))
        sys.stdout.flush()  # at the exit a full disk would be found too late for the exit code
        return code
    except BrokenPipeError:
        # Else Python tries once more at its exit, which gives a message and the exit code 120.
        sys.stdout = _nowhere()
        return 0
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) or ENDING.signal is not None:
            return ENDING.interrupted()
        ours = known(error)
        if ours is None and isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            sys.stdout = _nowhere()
            ours = RunError(f"what is printed cannot be written: {error.strerror}")
        if ours is None and isinstance(error, OSError) and error.errno in REFUSED and error.filename:
            ours = UsageError(f"{str(error.filename)[:200]}: {error.strerror}")
        if ours is None:
            raise
        print(f"selftrain: {ours}", file=sys.stderr)
        # Any other code, such as 3 of a SandboxError, means a failed run.
        return 2 if getattr(ours, "exit_code", 1) == 2 else 1


class Version(argparse.Action):
    """Action of the option `--version`."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Print the version and exit."""
        from importlib.metadata import PackageNotFoundError, version

        try:
            found = version("selftrain")
        except PackageNotFoundError:
            found = "(not installed)"
        print(f"selftrain {found}, Python {sys.version.split()[0]}, {Path(__file__).parent.parent}")
        parser.exit()


def parser() -> argparse.ArgumentParser:
    """Build the argument parser of all commands."""
    root = argparse.ArgumentParser(
        prog="selftrain",
        description="Trains a reranker for generated code by iterative self-training, and uses it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    root.add_argument("--version", action=Version, nargs=0, help="print the version and exit")
    commands = root.add_subparsers(title="commands", required=True, metavar="COMMAND")

    cli_run.add_run(commands)
    cli_run.add_plan(commands)
    cli_study.add_study(commands)
    cli_store.add_runs(commands)
    cli_store.add_store(commands)
    cli_run.add_node(commands)
    cli_champion.add_commands(commands)
    cli_rank.add_rank(commands)
    cli_evaluate.add_evaluate(commands)
    cli_check.add_check(commands)
    cli_inspect.add_inspect(commands)
    cli_new.add_new(commands)
    cli_generate.add_commands(commands)
    cli_serve.add_serve(commands)
    cli_export.add_export(commands)
    cli_studio.add_studio(commands)
    return root


if __name__ == "__main__":
    sys.exit(main())
