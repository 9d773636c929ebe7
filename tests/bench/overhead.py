"""Share of a demo's wall time that is not the stages' own work: Prefect, keys, verification, the report's last touch.

The time is the flow's. The start of the command and of the embedded server, which `selftrain run` prints, comes on top.

Reads runs/demo if it is there; `make demo` first. A run whose stages were cached says nothing, and is refused.
"""

import json
from pathlib import Path

REPORT = Path("runs/demo/report.json")


def main() -> None:
    """Print it."""
    if not REPORT.is_file():
        print(f"{REPORT} is not there: run `make demo` first")
        return
    report = json.loads(REPORT.read_text())
    if report["cached"]:
        print(f"the last demo found {len(report['cached'])} stages cached: `make clean demo` first")
        return
    seconds = dict(report["seconds"])
    total = seconds.pop("total")
    stages = sum(seconds.values())
    print(
        f"total {total:.1f} s, stages {stages:.1f} s: {100 * (total - stages) / total:.1f} % outside the stages' own work"
    )
