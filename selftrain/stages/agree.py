"""Stage `agree`: runs a pool's Python programs on generated inputs, and groups the programs of a problem by their outputs.

The larger a program's group, the likelier it is right (the idea of CodeT, Chen et al. 2023, with inputs by type in place of a
model's tests). Programs in other languages, and those that end early or raise an exception on every input, are in no group.
"""

import json
from collections import Counter

from sandbox.programs import assemble
from sandbox.verdicts import Program, Result, Verdict
from selftrain.cache_key import fingerprint
from selftrain.config import ExecuteConfig, Strict
from selftrain.errors import SandboxFailed
from selftrain.problems.chat import source_of
from selftrain.problems.inputs import function_inputs
from selftrain.records import Candidate, Problem, PromptStyle, read_records
from selftrain.stage import Context, Outcome, Stage
from selftrain.stages.execute import limits_for
from selftrain.units import count_of

LINE = "output "
"""Begins a line with the digest of one output."""
RAISED = "raised "
"""Begins a line with the digest of an exception's type."""
DRIVER = """
import hashlib as _hashlib
for _arguments in {inputs}:
    try:
        _kind, _shown = "{line}", repr({name}(*_arguments))
    except Exception as _error:
        _kind, _shown = "{raised}", type(_error).__name__
    print(_kind + _hashlib.sha256(_shown.encode("utf-8", "replace")).hexdigest()[:16])
"""
"""Follows a program, and prints one line for each input."""


class AgreeSlice(Strict):
    """What the groups depend on besides problems and candidates.

    inputs        number of inputs per problem
    prompt_style  as in `ExecuteSlice`
    """

    keyed_when_set = frozenset({"prompt_style"})

    seed: int
    inputs: int
    execute: ExecuteConfig
    toolchain: dict[str, str]
    prompt_style: PromptStyle = "completion"


def run(context: Context) -> Outcome:
    """Reads `problems` and `candidates`; writes groups.json: candidate id -> number of programs in its group, 0 for none.

    Raises SandboxFailed if the sandbox failed on a larger share of the programs than `execute.tolerated_errors`.
    """
    config: AgreeSlice = context.config
    problems = {p.id: p for p in read_records(context.inputs["problems"] / "problems.parquet", Problem)}
    candidates = read_records(context.inputs["candidates"] / "candidates.parquet", Candidate)
    drivers = {
        id: _driver(problems[id], config) for id in dict.fromkeys(row.problem_id for row in candidates)
    }
    sampled = [row for row in candidates if row.sample >= 0]
    wanted = [
        _program(problems[row.problem_id], row, driver, config)
        for row in sampled
        if (driver := drivers[row.problem_id])
    ]
    results = list(context.judge(wanted, "programs"))
    failed = [result for result in results if not result.verdict.is_label]
    if len(failed) > config.execute.tolerated_errors * len(results):
        raise SandboxFailed(
            f"the sandbox itself failed on {len(failed)} of {count_of(len(results), 'program')}, more than execute.tolerated_errors="
            f"{config.execute.tolerated_errors:g}. First: {failed[0].id}: {failed[0].stderr[-300:]}"
        )
    printed = {result.id: outputs(result) for result in results}
    groups = Counter((row.problem_id, key) for row in sampled if (key := printed.get(row.id)))
    sizes = {row.id: groups[row.problem_id, printed.get(row.id) or ""] for row in sampled}
    (context.folder / "groups.json").write_text(json.dumps(sizes))
    metrics = {
        "programs": len(wanted),
        "groups": len(groups),
        "without_group": sum(not size for size in sizes.values()),
    }
    return Outcome(fingerprint(sizes), metrics)


def _driver(problem: Problem, config: AgreeSlice) -> str:
    """The code that follows a problem's programs; empty where no inputs can be generated."""
    if problem.language != "py" or problem.cases:
        return ""
    found = function_inputs(problem.prompt, config.inputs, config.seed)
    return DRIVER.format(name=found[0], inputs=found[1], line=LINE, raised=RAISED) if found else ""


def _program(problem: Problem, row: Candidate, driver: str, config: AgreeSlice) -> Program:
    made = assemble(problem.language, *source_of(problem.prompt, row.completion, config.prompt_style), driver)
    return made.program(row.id, problem.language, limits_for(problem, config.execute))


def outputs(result: Result) -> str:
    """The lines about a program's outputs; empty if it did not come to its end or raised an exception on every input."""
    lines = [line for line in result.stdout.splitlines() if line.startswith((LINE, RAISED))]
    useful = result.verdict is Verdict.passed and any(line.startswith(LINE) for line in lines)
    return "\n".join(lines) if useful else ""


AGREE = Stage("agree", 1, run)
