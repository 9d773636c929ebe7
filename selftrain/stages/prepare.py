"""Build of stage `prepare`: the source's problems with their splits, checked for leaks between training and evaluation.

The stage itself is in `tasks.prepare`, which runs the tests in the sandbox too.
"""

from collections import Counter
from typing import Any

from selftrain.config import SPLITS, ProblemsConfig, Strict
from selftrain.errors import DataError
from selftrain.problems.read import Found, find_problems
from selftrain.records import Problem, digest, write_records
from selftrain.stage import Build, Outcome


class PrepareSlice(Strict):
    """What the problems depend on. `content`: sha256 of the source's files, or the hub's commit; never a path. `toolchain`:
    language -> versions and rules of the tools with which right programs are tried; not the image, of which whole runs would
    hang that way."""

    problems: ProblemsConfig
    content: dict[str, Any]
    toolchain: dict[str, str] | None = None


def find(build: Build) -> Found:
    """The source's problems."""
    return find_problems(build.config.problems, build.config.content)


def write(build: Build, found: Found) -> Outcome:
    """Writes problems.parquet. Raises `DataError` where a split has no problem."""
    problems = found.problems
    counts = Counter(problem.split for problem in problems)
    missing = [split for split in SPLITS if not counts[split]]
    if missing:
        raise DataError(
            f"no problem in splits {', '.join(missing)}; every split needs some: check problems.* in the config"
            + (f"; left out: {found.told}" if found.told else "")
        )
    write_records(build.folder / "problems.parquet", problems, Problem)
    metrics = {
        "source": build.config.problems.source,
        "problems": {split: counts[split] for split in SPLITS},
        "languages": dict(sorted(Counter(p.language for p in problems).items())),
        "left_out": dict(sorted(found.left_out.items())),
        "answers": dict(sorted(Counter(cleaned.how for cleaned in found.answers.values()).items())),
        "checks": dict(found.checks),
    }
    return Outcome(digest(problems), metrics)
