"""Audits real programs: no program that passes its tests may be called tampered, and what an audit costs.

    python -m tests.audit DIR [--languages py,sh] [--rows 40] [--backend docker]

Reads DIR/mbpp-LANG.jsonl, MultiPL-E problems with a model's answers, and judges every answer with audit `all`. Prints one line per
language: programs, how many pass, how many of these are called tampered, which audit was used (`Result.audited`), and the mean CPU
time per program in milliseconds without and with the audit. The ids of programs called tampered follow. The exit code is 1 if there
are any.
"""

import argparse
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sandbox.client import Sandbox
from sandbox.verdicts import Result, Verdict
from tests.truth import read

ORDER = "py,sh,php,js,ts,cs,cpp,java"


def main() -> int:
    """Run it."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("directory", type=Path)
    options.add_argument("--languages", default=ORDER)
    options.add_argument("--rows", type=int, help="so many of each language, evenly spread (default: all)")
    options.add_argument("--backend", default="docker")
    options.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    asked = options.parse_args()
    accused: list[str] = []
    print(
        "| language | programs | pass | tampered | audited | CPU ms, off | CPU ms, all |\n|---|---|---|---|---|---|---|"
    )
    with Sandbox(asked.backend, asked.workers) as sandbox:
        for name in asked.languages.split(","):
            programs = read(asked.directory / f"mbpp-{name}.jsonl", name, asked.rows)
            results = list(sandbox.run(replace(program, audit=True) for program in programs))
            accused += [result.id for result in results if result.verdict is Verdict.tampered]
            print(f"| {name} | {row(results)} |", flush=True)
    print(f"{len(accused)} tampered", *accused)
    return int(bool(accused))


def row(results: Sequence[Result]) -> str:
    """The cells for the results of one language's programs."""
    passed = [result for result in results if result.verdict in (Verdict.passed, Verdict.tampered)]
    tampered = sum(result.verdict is Verdict.tampered for result in results)
    audits = Counter(result.audited or "not" for result in passed)
    off = 1000 * sum(result.cpu_seconds for result in results) / len(results)
    audit = 1000 * sum(result.audit_cpu_seconds for result in results) / len(results)
    used = ", ".join(f"{kind} {count}" for kind, count in sorted(audits.items()))
    return f"{len(results)} | {len(passed)} | {tampered} | {used} | {off:.0f} | {off + audit:.0f}"


if __name__ == "__main__":
    raise SystemExit(main())
