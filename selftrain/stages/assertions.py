"""How many of the assertions of its tests a wrong program passes: each assertion is run by itself."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sandbox.assertions import alone
from sandbox.languages import language
from sandbox.verdicts import Program, Verdict
from selftrain.records import Pair, Problem
from selftrain.stage import Context
from selftrain.stages.execute import judge, known_verdicts, programs

RUN = (Verdict.wrong_answer, Verdict.runtime_error)
"""Verdicts of the programs that are run again. Others pass no assertion, or would take as long again for each."""


def shares_passed(
    context: Context, problems: Mapping[str, Problem], pairs: Sequence[Pair], verdicts: Mapping[str, Verdict]
) -> dict[str, float]:
    """Id of each wrong program in `pairs` -> share of assertions that it passes.

    It lacks programs whose verdict is not in `RUN`, those of problems without at least two assertions that can be run by
    themselves (`sandbox.assertions`), and those that the sandbox failed to judge. `verdicts`: program id -> verdict.
    """
    execute = context.config.execute.model_copy(update={"audit": "off"})
    style = context.config.prompt_style
    tests = {
        id: [] if problems[id].cases else alone(language(problems[id].language), problems[id].tests)
        for id in {pair.problem_id for pair in pairs}
    }
    wanted: dict[str, list[Program]] = {}
    for pair in pairs:
        if pair.rejected_id in wanted or verdicts[pair.rejected_id] not in RUN:
            continue
        problem = problems[pair.problem_id]
        wanted[pair.rejected_id] = [
            program
            for at, text in enumerate(tests[problem.id])
            for program in programs(
                replace(problem, tests=text, example_tests=""),
                f"{pair.rejected_id}/{at}",
                pair.rejected,
                execute,
                style,
            )
        ]
    with context.sandbox() as sandbox, known_verdicts(context) as cache:
        every = [program for each in wanted.values() for program in each]
        results = judge(
            every, sandbox, cache, lambda found: context.progress(len(found), len(every), "programs")
        )
    found = {id: [results[program.id].verdict for program in each] for id, each in wanted.items() if each}
    return {
        id: sum(verdict is Verdict.passed for verdict in each) / len(each)
        for id, each in found.items()
        if all(verdict.is_label for verdict in each)
    }
