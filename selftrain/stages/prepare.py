"""Build of stage `prepare`: the source's problems with their splits, checked for leaks between training and evaluation.

The stage itself is in `tasks.prepare`, which runs the tests in the sandbox too.
"""

from collections import Counter
from typing import Any

from selftrain.config import SPLITS, ProblemsConfig, Strict
from selftrain.errors import DataError
from selftrain.problems.read import find_problems
from selftrain.records import Problem, digest, write_records
from selftrain.stage import Build, Outcome


class PrepareSlice(Strict):
    """What the problems depend on. `content`: sha256 of the source's files, or the hub's commit; never a path."""

    problems: ProblemsConfig
    content: dict[str, Any]


def build(build: Build) -> Outcome:
    """Writes problems.parquet."""
    found = find_problems(build.config.problems, build.config.content)
    problems = found.problems
    counts = Counter(problem.split for problem in problems)
    missing = [split for split in SPLITS if not counts[split]]
    if missing:
        raise DataError(
            f"no problem in splits {', '.join(missing)}; every split needs some: check problems.* in the config"
        )
    write_records(build.folder / "problems.parquet", problems, Problem)
    metrics = {
        "source": build.config.problems.source,
        "problems": {split: counts[split] for split in SPLITS},
        "languages": dict(sorted(Counter(p.language for p in problems).items())),
        "left_out": dict(sorted(found.left_out.items())),
    }
    return Outcome(digest(problems), metrics)
