"""The command `selftrain study`."""

import argparse
import sys
from pathlib import Path
from typing import Any

from flows.options import add_command, add_list, add_number
from selftrain.launch.ending import ENDING


def add_study(commands: Any) -> None:
    """Add `selftrain study`."""
    study = add_command(
        commands,
        "study",
        study_command,
        "variants of a config, each with several seeds, and one table with paired intervals",
        "Runs every variant of a study file with every seed; equal stages are built once. The same command resumes: "
        "finished runs are kept, a failed one does not stop the others. Writes SPLIT.md, SPLIT.csv, SPLIT.json and plots into the "
        "study's folder. Exit code: 0 all runs are finished, 1 some are not, 2 wrong usage.",
    )
    study.add_argument(
        "study", help="a YAML file (docs/studies.md), or the name of a shipped study: evidence, ..."
    )
    overrides = (
        "override a setting of the base config (may be repeated); a variant's own settings override it"
    )
    add_list(study, "--set", "A.B=VALUE", overrides, dest="settings")
    study.add_argument("--out", help="the study's folder (default: runs/NAME)")
    add_number(study, "--jobs", 1, "N", "number of runs at once")
    study.add_argument(
        "--split",
        choices=("validation", "test"),
        default="test",
        help="whose problems the table is about: validation to choose between variants, test to report (default)",
    )
    study.add_argument(
        "--dry-run", action="store_true", help="print the runs, what they share, and the planned time"
    )


def study_command(options: argparse.Namespace) -> int:
    """`selftrain study`."""
    from flows.study import describe, outlines, run_study
    from selftrain.configfile import parse_overrides
    from selftrain.errors import UsageError
    from selftrain.studyfile import read_study

    if options.jobs < 1:
        raise UsageError(f"--jobs {options.jobs}: expected at least 1")
    study = read_study(options.study, parse_overrides(options.settings))
    out = Path(options.out or Path("runs") / study.config.name)
    if options.dry_run:
        print(describe(study, outlines(study, out)))
        return 0
    ENDING.catch()
    text, missing = run_study(study, out, options.jobs, options.split)
    print(text)
    print(f"files: {out}/{options.split}.md, .csv, .json and .svg", file=sys.stderr)
    return 1 if missing else 0
