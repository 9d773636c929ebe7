"""Executes candidates of a pool while others of it are still sampled: their verdicts are in the cache when `execute` begins.

`execute` then does not run these programs again. Its shards, results and key are the same with and without this.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from selftrain.records import CandidateText, Problem, read_records
from selftrain.stage import Context
from selftrain.stages.execute import judge, known_verdicts, programs_of

POLL_SECONDS = 0.5
BUSY_POLLS = 10
"""Number of polls from one question for the sandbox to the next, where others use it."""
AT_ONCE = 200
"""Number of programs between two questions whether to go on."""


def execute_ahead(
    context: Context,
    sampled: Path,
    go_on: Callable[[], bool],
    spare: Callable[[], AbstractContextManager[bool]],
) -> int:
    """Judge the programs of each sampled shard as soon as it is in the folder `sampled`, until `go_on` says no.

    context  of stage `execute`, with the input `problems` only
    spare    entered for each shard, so that nothing is held while none is there; says whether the sandbox may be used now

    Returns the number of programs that were judged or were in the cache of verdicts.
    """
    count, seen = 0, set[str]()
    problems = {p.id: p for p in read_records(context.inputs["problems"] / "problems.parquet", Problem)}
    with ExitStack() as stack:
        opened = None
        while go_on():
            new = [path for path in sorted(sampled.glob("shard-*.parquet")) if path.name not in seen]
            if not new:
                time.sleep(POLL_SECONDS)
                continue
            if opened is None:  # on the first shard: until then it would be idle
                opened = stack.enter_context(context.sandbox()), stack.enter_context(known_verdicts(context))
            wanted = programs_of(problems, read_records(new[0], CandidateText), context.config)
            with spare() as free:
                for at in range(0, len(wanted) if free else 0, AT_ONCE):
                    if not go_on():
                        break
                    count += len(judge(wanted[at : at + AT_ONCE], *opened, lambda _: None))
            if free:
                seen.add(new[0].name)
                continue
            for _ in range(BUSY_POLLS):
                if go_on():
                    time.sleep(POLL_SECONDS)
    return count
