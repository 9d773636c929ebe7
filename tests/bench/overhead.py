"""Benchmark: the cost of orchestration, that is Prefect, cache keys, verification, and finishing the report.

1. The share of a demo's wall time that is not the stages' own work; `prod` has the demo's sizes. The time is the flow's: the start of
   the command and of an embedded server, which `selftrain run` prints, comes on top. Reads runs/: `make demo` first.
2. The seconds of a run that finds everything cached, against a running server, the process's start included.
"""

import json
import os
import tempfile
import time
from pathlib import Path

from tests.command import prefect_server, run_smoke

RUNS = Path("runs")


def main() -> None:
    """Print both."""
    print(share())
    print(f"everything cached: {cached_seconds():.1f} s (goal: 20 s)")


def share() -> str:
    """One line about the newest demo that found nothing cached: the others say nothing."""
    reports = [json.loads(path.read_text()) for path in sorted(RUNS.glob("demo.*/report.json"))]
    whole = [report for report in reports if not report["cached"]]
    if not whole:
        return f"no run of demo in {RUNS} built all its stages: `make clean demo` first"
    seconds = dict(whole[-1]["seconds"])
    total = seconds.pop("total")
    stages = sum(seconds.values())
    outside = 100 * (total - stages) / total
    return f"total {total:.1f} s, stages {stages:.1f} s: {outside:.1f} % outside the stages' own work (goal: 5 %)"


def cached_seconds() -> float:
    """Of the second of two runs of the smoke config, which has as many stages as the demo."""
    with tempfile.TemporaryDirectory() as home, prefect_server(Path(home)) as server:
        os.environ["PREFECT_API_URL"] = server.url
        run_smoke(Path(home))
        started = time.monotonic()
        second = run_smoke(Path(home))
        seconds = time.monotonic() - started
        assert len(second.report["cached"]) == len(second.stages)
    return seconds
