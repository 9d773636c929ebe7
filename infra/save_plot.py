"""Saves one plot of a run's report as an SVG file; this command created the README's plot:

python infra/save_plot.py runs/demo "Share of problems solved, pool sft" docs/assets/demo.svg
"""

import base64
import sys
from pathlib import Path

from selftrain.report.build import plots


def main(run: str, label: str, file: str) -> int:
    """Write the first plot whose label begins with `label`; returns 2 if the report has none."""
    found = plots(Path(run))
    for name, url in found:
        if name.startswith(label):
            Path(file).write_bytes(base64.b64decode(url.partition(",")[2]))
            return 0
    print(f"no plot {label!r} in {run}; known: {'; '.join(name for name, _ in found)}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
