"""The command `selftrain inspect`: one candidate's history in a run."""

import argparse
import json
from dataclasses import asdict
from typing import Any

from flows.options import add_command, offline
from selftrain.units import count_of, visible

EXAMPLES = """\
examples:
  selftrain inspect runs/demo add-3.py#5            the candidate 5 of problem add-3.py, of the first policy that has one
  selftrain inspect runs/demo ppo-1/add-3.py#5      that of policy ppo-1
  selftrain inspect runs/demo add-3.py#             the first characters are enough where one candidate has them; else all are named
  selftrain inspect runs/demo add-3.py#5 --json     all of it as JSON

`selftrain rank runs/demo --example` and the report name problems and candidates."""


def add_inspect(commands: Any) -> None:
    """Add `selftrain inspect`."""
    inspect = add_command(
        commands,
        "inspect",
        inspect_command,
        "one candidate's history: who sampled it, its verdict, scores, pairs, and who picked it",
        "Shows what a run knows about one candidate: the policy and the temperature it was sampled with, its text and "
        "log-probability, the sandbox's verdict, its scores and places by each ranker, the pairs it was in, and which ways picked it.",
        EXAMPLES,
    )
    inspect.add_argument("run", help="a run's folder, or its name in runs/")
    inspect.add_argument(
        "candidate", metavar="CANDIDATE_ID", help="PROBLEM#NUMBER, or POOL/PROBLEM#NUMBER; a prefix will do"
    )
    inspect.add_argument("--json", action="store_true", help="print JSON")


def inspect_command(options: argparse.Namespace) -> int:
    """`selftrain inspect`."""
    offline()
    from selftrain.examine.history import history
    from selftrain.store.runfile import find_run, read_run

    found = history(read_run(find_run(options.run)), options.candidate)
    values = asdict(found) | {"mean_logprob": _mean(found)}
    print(json.dumps(values, indent=1) if options.json else "\n".join(_lines(found)))
    return 0


def _mean(found: Any) -> float:
    return float(found.candidate.logprob / max(1, len(found.candidate.token_ids)))


def _lines(found: Any) -> list[str]:
    candidate, problem = found.candidate, found.problem
    how = "greedy" if candidate.sample < 0 else f"at temperature {found.temperature:g}"
    lines = [
        f"{found.pool}/{candidate.id}",
        f"problem    {problem.id}: {problem.language}, split {problem.split}, from {problem.source}",
        f"sampled    by {found.pool} ({found.policy[:20]}) {how}; {count_of(len(candidate.token_ids), 'token')}, end: {candidate.finish_reason}",
        f"log-prob.  {candidate.logprob:.3f} nats, {_mean(found):.3f} per token",
    ]
    ran = found.execution
    if ran is None:
        lines.append("verdict    not judged yet")
    else:
        code = "" if ran.exit_code is None else f", exit code {ran.exit_code}"
        does = {None: "", True: ", passes", False: ", fails"}[ran.examples_passed]
        shown = f"{does} the prompt's examples" if does else ""
        lines.append(f"verdict    {ran.verdict}{code}, {ran.cpu_seconds:.2f} s of CPU{shown}")
    for name, (score, place) in found.scores.items():
        where = "" if place is None else f", place {place} of {found.of}"
        lines.append(f"score      {score:+.4f} by {name}{where}")
    lines += [f"pair       {_pair(pair)}" for pair in found.pairs] or ["pair       in none"]
    if found.picked_by is not None:
        lines.append(f"picked by  {', '.join(found.picked_by) or 'no way'}")
    if found.also_in:
        lines.append(f"also in    {', '.join(f'{pool}/{candidate.id}' for pool in found.also_in)}")
    lines += ["", *_quoted(problem.prompt, ": "), *_quoted(candidate.completion, "| ")]
    if ran is not None and ran.output.strip():
        lines += ["", "what it printed:", *_quoted(ran.output, "> ")]
    return lines


def _pair(pair: Any) -> str:
    scores = "" if pair.score is None else f", scored {pair.score:+.3f} against {pair.other_score:+.3f}"
    copy = f" (as {pair.copy}, the same program)" if pair.copy else ""
    return f"round {pair.round}, {pair.kind}: {pair.role} against {pair.other}{scores}{copy}"


def _quoted(text: str, mark: str) -> list[str]:
    return [f"  {mark}{line}" for line in visible(text).rstrip("\n").split("\n")]
