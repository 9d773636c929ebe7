"""What the options of several commands have in common."""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.progress import Progress
from selftrain.errors import UsageError

if TYPE_CHECKING:
    from selftrain.config import RuntimeConfig
    from selftrain.stage import Context


def add_command(
    commands: Any,
    name: str,
    run: Callable[[argparse.Namespace], int],
    help: str,
    description: str | None = None,
    examples: str | None = None,
) -> argparse.ArgumentParser:
    """Add the command `name`, which calls `run` with its options. `examples` stand below the help, as they are written."""
    raw = argparse.RawDescriptionHelpFormatter if examples else argparse.HelpFormatter
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=help, description=description, epilog=examples, formatter_class=raw
    )
    command.set_defaults(command=run)
    return command


def add_number(
    command: argparse.ArgumentParser,
    name: str,
    default: float,
    metavar: str | None,
    help: str = "",
    kind: Callable[[str], float] | None = None,
) -> None:
    """Add an option that is a number, by default of the type of its `default`, which the help names after `help`."""
    text = f"{help} (default: {default:g})".strip()
    command.add_argument(name, type=kind or type(default), default=default, metavar=metavar, help=text)


def add_list(
    command: argparse.ArgumentParser, name: str, metavar: str, help: str, dest: str | None = None
) -> None:
    """Add an option that may be given several times; its value is a list."""
    options: dict[str, Any] = {"dest": dest} if dest else {}
    command.add_argument(name, action="append", default=[], metavar=metavar, help=help, **options)


def add_sandbox(command: argparse.ArgumentParser) -> None:
    """The options that choose the sandbox."""
    command.add_argument(
        "--backend",
        default="auto",
        choices=("auto", "docker", "bubblewrap", "process"),
        help="how programs are isolated (default: auto: docker, else bubblewrap; process isolates nothing)",
    )
    add_number(command, "--workers", 2, "N", "programs at once")


def runtime_of(options: argparse.Namespace) -> "RuntimeConfig":
    """The settings that the options of `add_sandbox` choose."""
    from selftrain.config import MOST_PROCESSES, RuntimeConfig

    within("--workers", options.workers, 1, MOST_PROCESSES)
    return RuntimeConfig(backend=options.backend, workers=options.workers)


@contextmanager
def judging(runtime: "RuntimeConfig") -> Iterator["Context"]:
    """What a stage is told that judges programs for a command: its files are removed at the end, its progress is shown."""
    from selftrain.stage import Context
    from tasks.sandbox import sandbox_at_work

    with tempfile.TemporaryDirectory() as folder:
        sandbox = partial(sandbox_at_work, runtime)
        yield Context(None, {}, Path(folder), runtime, Progress(sys.stderr), sandbox=sandbox)


def offline(*places: str | None) -> None:
    """Make the hub's library answer from its cache alone, unless one of `places` may be OWNER/NAME on the hub. Call it before that
    library is imported."""
    if not any(place and "/" in place and not Path(place).exists() for place in places):
        os.environ.setdefault("HF_HUB_OFFLINE", "1")


def within(option: str, value: int, least: int, most: int) -> None:
    """Raise UsageError where the value of an option is too small or too large."""
    if not least <= value <= most:
        raise UsageError(f"{option}: expected {least} to {most:,}, got {value}")
