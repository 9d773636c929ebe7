"""Measures a cold start: `python -m tests.bench.cold RUN`, the median wall time of `selftrain rank RUN` with three files; goal 4 s.

Every start is a new process, with compiled modules and the disk's cache as they are after the first one, which does not count.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from selftrain.rerank.example import example

STARTS, FILES, GOAL = 5, 3, 4.0


def main() -> None:
    """Measure and print."""
    run = sys.argv[1]
    found = example(run)
    with tempfile.TemporaryDirectory() as folder:
        prompt = Path(folder, "prompt.txt")
        prompt.write_text(found.prompt)
        files = [Path(folder, f"{number}.txt") for number in range(FILES)]
        for path, text in zip(files, found.candidates, strict=False):
            path.write_text(text)
        command = [sys.executable, "-m", "flows.cli", "rank", run, "--prompt", prompt, *files]
        seconds = []
        for _ in range(STARTS + 1):
            started = time.monotonic()
            subprocess.run(command, check=True, capture_output=True)
            seconds.append(time.monotonic() - started)
    print(f"rank with {FILES} files, from a cold start: {median(seconds[1:]):.2f} s (goal {GOAL:.0f})")


if __name__ == "__main__":
    main()
