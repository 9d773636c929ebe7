"""The command `selftrain check-data`: finds faults in a file of problems before anything is trained."""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flows.options import add_command, add_list, add_number, add_sandbox, judging, runtime_of
from sandbox.errors import SandboxError
from selftrain.errors import RunError, UsageError
from selftrain.units import count_of, listed, visible

DESCRIPTION = """\
Reads problems (docs/own-data.md, or MultiPL-E's fields) and runs programs in the sandbox to find: lines that cannot be read,
answers that fail their tests, tests that cannot run or that an empty function passes, checkers that fail, one task under two
names, tasks that are also in what is evaluated on, and prompts that are too long for a model. Every finding names its line and what
to do.
Exit code: 0 nothing found, 1 findings, 2 a line or a file cannot be read."""

EXAMPLES = """\
examples:
  selftrain check-data docs/own-data/stdio.jsonl
  selftrain check-data mine.jsonl --against humaneval-py.jsonl     also: tasks that are in HumanEval
  selftrain check-data mine.jsonl --model models/smollm2-135m      also: prompts beyond that model's longest input
  selftrain check-data mine.jsonl --json > findings.json"""

SHOWN = 20
"""Largest number of findings of one kind that the text lists."""


def add_check(commands: Any) -> None:
    """Add `selftrain check-data`."""
    about = "find faults in a file of problems before anything is trained"
    check = add_command(commands, "check-data", check_command, about, DESCRIPTION, EXAMPLES)
    check.add_argument("files", nargs="+", metavar="FILE", help="files of problems, folders or globs")
    evaluated_on = "problems to evaluate on, none of which may be in FILE (may be repeated)"
    add_list(check, "--against", "FILE", evaluated_on)
    check.add_argument("--model", metavar="FOLDER", help="the model whose tokenizer and longest input count")
    check.add_argument("--context", type=int, metavar="TOKENS", help="longest input (default: the model's)")
    add_number(check, "--new-tokens", 64, "N", "tokens to write, sample.max_new_tokens")
    check.add_argument("--json", action="store_true", help="print JSON, with all findings")
    add_sandbox(check)


def check_command(options: argparse.Namespace) -> int:
    """`selftrain check-data`."""
    from selftrain.examine.data import line_of, read_file, run_checks

    runtime = runtime_of(options)
    if options.new_tokens < 1:
        raise UsageError(f"--new-tokens: expected at least 1, got {options.new_tokens}")
    if options.context is not None and options.model is None:
        raise UsageError(
            "--context counts tokens: give --model, the folder of the model whose tokenizer counts"
        )
    if options.context is not None and options.context < 1:
        raise UsageError(f"--context: expected at least 1 token, got {options.context}")
    read, held_out = read_file(options.files), read_file(options.against)
    if held_out.findings:
        raise UsageError(f"{held_out.findings[0].where}: {held_out.findings[0].text}")
    findings = list(read.findings)
    if options.model is not None:
        findings += _too_long(read, options)
    try:
        with judging(runtime) as context:
            more, ran = run_checks(context, read, held_out)
    except (SandboxError, RunError) as error:
        raise UsageError(f"the problems' programs could not be run: {error}") from error
    findings = sorted(findings + more, key=line_of)
    if options.json:
        rows = [vars(finding) for finding in findings]
        print(json.dumps({"problems": len(read.problems), "programs": ran, "findings": rows}, indent=1))
    else:
        print(_text(read, findings, ran, options))
    kinds = {finding.kind for finding in findings}
    return 2 if "unreadable" in kinds else 1 if kinds else 0


def _text(read: Any, findings: Sequence[Any], ran: dict[str, int], options: argparse.Namespace) -> str:
    from selftrain.examine.data import KINDS

    languages = Counter(problem.language for problem in read.problems)
    named = ", ".join(f"{name} {count}" for name, count in sorted(languages.items()))
    lines = [
        f"{count_of(len(read.problems), 'problem')}{f' ({named})' if named else ''}; programs run: "
        + ", ".join(f"{count} {what}" for what, count in ran.items())
    ]
    for kind, (one_is, several_are, what, remedy) in KINDS.items():
        own = [finding for finding in findings if finding.kind == kind]
        if own:
            lines += ["", f"{count_of(len(own), one_is, several_are)} {what}: {remedy}"]
            lines += [
                f"  {one.where}: {one.id}{': ' if one.id else ''}{visible(one.text)}" for one in own[:SHOWN]
            ]
        if len(own) > SHOWN:
            lines.append(f"  and {len(own) - SHOWN} more; --json lists all")
    unanswered = [problem.id for problem in read.problems if not problem.response]
    notes = [
        f"not run: {count_of(count, 'problem')} in {name}" for name, count in sorted(read.skipped.items())
    ]
    if unanswered:
        notes.append(
            f"{count_of(len(unanswered), 'problem has', 'problems have')} no answer, to check or to learn from: {listed(unanswered)}"
        )
    if not options.against:
        notes.append("not compared with what is evaluated on: give it with --against FILE")
    if not options.model:
        notes.append("lengths not counted: give a model with --model FOLDER")
    if not findings:
        lines += ["", "nothing found"]
    return "\n".join([*lines, "", *notes])


def _too_long(read: Any, options: argparse.Namespace) -> list[Any]:
    from selftrain.examine.data import too_long
    from selftrain.models.models import load_context, load_tokenizer
    from selftrain.models.prompts import encode_problem

    folder = Path(options.model)
    tokenizer = load_tokenizer(folder)
    longest = options.context or load_context(folder)
    if longest is None:
        raise UsageError(f"{folder}: its config names no longest input; give it with --context TOKENS")

    def length(problem: Any) -> int:
        return len(encode_problem(tokenizer, problem.prompt, problem.language))

    return list(too_long(read, length, longest, options.new_tokens))
