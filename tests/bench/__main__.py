"""Runs the named benchmarks, or all: `python -m tests.bench [NAME ...]`."""

import sys

from tests.bench import (
    dask,
    learning,
    millions,
    overhead,
    overlap,
    pairs,
    plan,
    ppo,
    sampling,
    sandbox,
    scoring,
    serve,
    server,
    sft,
)

BENCHES = {
    "sampling": sampling.main,
    "scoring": scoring.main,
    "serve": serve.main,
    "sft": sft.main,
    "pairs": pairs.main,
    "ppo": ppo.main,
    "overhead": overhead.main,
    "overlap": overlap.main,
    "server": server.main,
    "sandbox": sandbox.main,
    "plan": plan.main,
    "dask": dask.main,
    "learning": learning.main,
    "millions": millions.main,
}


def main() -> int:
    """Run them."""
    names = sys.argv[1:] or list(BENCHES)
    if unknown := [name for name in names if name not in BENCHES]:
        print(f"unknown bench {', '.join(unknown)}; known: {', '.join(BENCHES)}", file=sys.stderr)
        return 2
    for name in names:
        print(f"## {name}")
        BENCHES[name]()
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
