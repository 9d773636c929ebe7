"""What a program costs in the sandbox, on real MultiPL-E problems with a model's answers ($MULTIPL_E_DIR/mbpp-LANG.jsonl).

Goals, as ratios of CPU time, plain commands / sandbox, verdict cache off: py 5, ts 12, java 3, cpp 3, js and cs 0.9, php 0.7,
sh 0.5; one container per program / sandbox: 8 over all.
"""

import os
from pathlib import Path

from sandbox.bench import bench
from tests.truth import read

ROWS = {"py": 200, "php": 120, "sh": 240}
"""Of other languages 40: what takes longer needs fewer for a tick of the clock to be little."""
WORKERS = 2
LANGUAGES = ("py", "ts", "java", "cpp", "js", "cs", "php", "sh")


def main() -> None:
    """Measure, and print."""
    directory = os.environ.get("MULTIPL_E_DIR")
    if not directory:
        print("skipped: set MULTIPL_E_DIR to a folder with mbpp-LANG.jsonl files")
        return
    programs = [
        p for name in LANGUAGES for p in read(Path(directory, f"mbpp-{name}.jsonl"), name, ROWS.get(name, 40))
    ]
    for line in bench(programs, "auto", WORKERS):
        print(line, flush=True)
