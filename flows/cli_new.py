"""The command `selftrain new`: writes a config from flags or answers, plans it, and names the next command."""

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flows.options import add_command
from selftrain.errors import SelftrainError, UsageError

EXAMPLES = """\
examples:
  selftrain new my.yaml                                        asks for what it needs
  selftrain new my.yaml --source bank --languages py,sh        generated exercises, tiny models with random weights
  selftrain new my.yaml --source jsonl --files mine.jsonl --languages py
  selftrain new my.yaml --source multipl-e --hub nuprl/MultiPL-E --train 'mbpp-*' --evaluation 'humaneval-*' \\
      --base Qwen/Qwen2.5-Coder-0.5B --gpus 1 --rounds 2

It writes only what differs from the defaults (docs/configuration.md has all settings), and overwrites no file."""

SECTIONS = ("sft", "sample", "mine", "reward", "ppo")
"""Sections of a shipped config that a new one with pretrained weights takes over."""
COMMENTS = {
    "rounds": "rounds of reranker training and PPO",
    "problems": "where problems come from; docs/own-data.md",
    "model": "what training starts from",
    "sft": "sizes and rates of {like}: a first choice, which your validation problems should judge",
    "runtime": "where it runs; changes no result",
}
"""Setting -> the comment in front of it."""
FEW_ROWS = 1000
FOR_FEW = {"sft": {"epochs": 60, "batch_size": 8, "micro_batch_size": 8}}
"""Settings for a model with random weights and problems of one's own in fewer than `FEW_ROWS` rows: with the defaults, 6 passes in
batches of 64, it would make a handful of steps, fewer than the learning rate takes to rise."""
NEEDED = {
    "jsonl": ("files",),
    "multipl-e": ("train", "evaluation"),
    "contests": ("train", "evaluation"),
    "bank": (),
}
"""Source -> the options that name its problems."""


def add_new(commands: Any) -> None:
    """Add `selftrain new`."""
    new = add_command(
        commands,
        "new",
        new_command,
        "write a config from flags or questions, and plan it",
        "Writes a config, prints what a run of it needs (`selftrain plan`), and the next command. On a terminal it asks "
        "for what no flag gives. Exit code: 0 it fits, 1 it does not, 2 wrong usage.",
        EXAMPLES,
    )
    new.add_argument("file", metavar="FILE", help="the config to write, such as my.yaml; it must not exist")
    new.add_argument(
        "--source",
        choices=tuple(NEEDED),
        help="where problems come from (default: bank, or jsonl with --files)",
    )
    new.add_argument("--files", help="source jsonl: your problems, separated by commas")
    new.add_argument("--train", help="multipl-e, contests: files, or subsets on the hub, to train on")
    new.add_argument("--evaluation", help="multipl-e, contests: files, or subsets on the hub, to evaluate on")
    new.add_argument("--hub", metavar="DATASET", help="multipl-e, contests: the data set on the hub")
    new.add_argument(
        "--languages", metavar="A,B", help="languages of the problems, such as py,cpp (default: py)"
    )
    new.add_argument(
        "--base",
        metavar="MODEL",
        help="folder or hub id of a pretrained model (default: tiny, random weights)",
    )
    new.add_argument("--gpus", type=int, metavar="N", help="number of GPUs (default: 0, CPUs)")
    new.add_argument(
        "--rounds", type=int, metavar="N", help="rounds of reranker training and PPO (default: 2)"
    )


def new_command(options: argparse.Namespace) -> int:
    """`selftrain new`."""
    from flows.cli_run import FROM_SCRATCH, plan_command
    from selftrain.configfile import load_config

    path = Path(options.file)
    if path.exists():
        raise UsageError(f"{path} exists, and is not overwritten; name another file, or remove it")
    if path.suffix not in (".yaml", ".yml"):
        raise UsageError(f"{path}: expected a name that ends with .yaml, such as {path.name}.yaml")
    if options.source is None and options.files:
        options.source = "jsonl"
    if sys.stdin.isatty():
        ask(options)
    values, like = settings(options)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(written(values, like))
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from error
    try:
        load_config(str(path))
    except UsageError:
        path.unlink()  # nothing is left that does not load
        raise
    print(f"wrote {path}:\n\n{path.read_text()}")
    try:
        code = plan_command(_plan_options(str(path), options.gpus or None))
    except SelftrainError as error:  # the model or the problems are not here, or not as the run needs them
        print(f"selftrain: not planned: {error}", file=sys.stderr)
        code = 1
    if not options.base and values["problems"]["source"] != "bank":
        print(f"\nselftrain: {FROM_SCRATCH}; name a pretrained one with --base", file=sys.stderr)
    name = shlex.quote(str(path))
    files = shlex.join(values["problems"].get("files", []))
    check = f"  selftrain check-data {files}\n" if files else ""
    print(f"\nnext:\n{check}  selftrain run {name} --dry-run\n  selftrain run {name}")
    return code


def ask(options: argparse.Namespace) -> None:
    """Ask on the terminal for what the flags leave open; an empty answer is the default."""
    if options.source is None:
        options.source = _answer(f"problems from ({', '.join(sorted(NEEDED))})", "bank")
        if options.source not in NEEDED:
            raise UsageError(f"{options.source}: expected one of {', '.join(sorted(NEEDED))}")
    if options.hub is None and options.source in ("multipl-e", "contests"):
        options.hub = _answer("data set on the hub (empty: local files)", "") or None
    for name in NEEDED[options.source]:
        if getattr(options, name) is None:
            setattr(options, name, _answer(f"{name} (files or subsets, separated by commas)", "") or None)
    if options.languages is None:
        options.languages = _answer("languages, separated by commas", "py")
    if options.base is None:
        question = "pretrained model, a folder or hub id (empty: tiny models, random weights)"
        options.base = _answer(question, "") or None
    if options.gpus is None:
        options.gpus = _number("GPUs", 0)
    if options.rounds is None:
        options.rounds = _number("rounds", 2)


def settings(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """The settings of the new config that differ from the defaults, and the file whose sizes they take over, if any."""
    import yaml

    from selftrain.config import RunConfig
    from selftrain.configfile import find_config

    source = options.source or "bank"
    for name in NEEDED[source]:
        if not getattr(options, name):
            raise UsageError(
                f"source {source} needs --{name}: the files{' or subsets' if name != 'files' else ''} that hold the problems"
            )
    allowed = {*NEEDED[source], *(("hub",) if "train" in NEEDED[source] else ())}
    for given in {"files", "train", "evaluation", "hub"} - allowed:
        if getattr(options, given):
            raise UsageError(
                f"--{given} is not for source {source}; expected another --source ({', '.join(sorted(NEEDED))})"
            )
    gpus = options.gpus or 0
    if gpus < 0:
        raise UsageError(f"--gpus: expected 0 or more, got {gpus}")
    problems: dict[str, Any] = {"source": source, "languages": _listed(options.languages or "py")}
    problems |= {name: _listed(getattr(options, name)) for name in NEEDED[source]}
    problems |= {"hub": options.hub} if options.hub else {}
    rounds = 2 if options.rounds is None else options.rounds
    values: dict[str, Any] = {"rounds": rounds, "problems": problems}
    like = ""
    if options.base:
        name = "qwen2.5-coder-0.5b" if gpus else "smollm2-135m"
        like = f"configs/{name}.yaml"
        values["model"] = {"base": options.base}
        shipped = yaml.safe_load(find_config(name).read_text())
        values |= {name: shipped[name] for name in SECTIONS if name in shipped}
    elif source == "jsonl" and _rows(problems["files"]) < FEW_ROWS:
        like = "docs/own-data/own.yaml"
        values |= FOR_FEW
    if gpus:
        values["runtime"] = {"device": "cuda", "processes": gpus}
        values.setdefault("sample", {})["engine"] = "hf"
    elif source == "bank" and not options.base:
        # The bank's programs, by a tiny model with random weights, need no isolation, and so no Docker.
        values["runtime"] = {"backend": "process"}
    return _differing(values, RunConfig().model_dump(mode="json")), like


def _rows(files: Sequence[str]) -> int:
    """The number of lines in `files`; 0 if one cannot be read, which the plan then says."""
    try:
        return sum(Path(name).read_bytes().count(b"\n") for name in files)
    except OSError:
        return 0


def _differing(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """`values` without what is equal to the defaults; the source of problems is always named."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict) and isinstance(defaults.get(name), dict) and name != "problems":
            inner = _differing(value, defaults[name])
            found |= {name: inner} if inner else {}
        elif name not in defaults or value != defaults[name]:
            found[name] = value
    return found


def written(values: Mapping[str, Any], like: str) -> str:
    """The config as YAML, with a comment before the sections that need one."""
    import yaml

    lines = [
        "# Written by `selftrain new`: only what differs from the defaults; docs/configuration.md has all settings."
    ]
    for name, value in values.items():
        if name in COMMENTS:
            lines += ["", f"# {COMMENTS[name].format(like=like)}"]
        flow = None if isinstance(value, dict) else False
        text = yaml.safe_dump({name: value}, sort_keys=False, default_flow_style=flow, width=120)
        lines.append(text.rstrip())
    return "\n".join(lines) + "\n"


def _plan_options(config: str, gpus: int | None) -> argparse.Namespace:
    """The options of `selftrain plan CONFIG --gpus N`."""
    from flows.cli_run import add_plan

    commands = argparse.ArgumentParser().add_subparsers()
    add_plan(commands)
    [plan] = commands.choices.values()
    parsed: argparse.Namespace = plan.parse_args([config] if gpus is None else [config, "--gpus", str(gpus)])
    return parsed


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _answer(question: str, default: str) -> str:
    print(f"{question}{f' [{default}]' if default else ''}: ", end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    if not line:
        raise UsageError("the questions were not answered; give flags, see `selftrain new --help`")
    return line.strip() or default


def _number(question: str, default: int) -> int:
    text = _answer(question, str(default))
    if not text.isdecimal():
        raise UsageError(f"{question}: expected a whole number, got {text!r}")
    return int(text)
