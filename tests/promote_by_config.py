"""Tests promotion with a better, an equal and a worse challenger, through the real flow on a small set of problems.

    python -m tests.promote_by_config FOLDER

The first challenger is a reranker with hardly any training, which has to beat a random pick and log-probability, and does not. Three
more follow, each from a change of the config: a trained reranker, the first champion; one with another value of a setting that enters the key but has no effect (patience, without evaluations during
training); and one with hardly any training. Expected decisions: not promoted, promoted, not promoted, not promoted. This takes some
minutes. The exit code is 1 if a decision differs.
"""

import sys
from pathlib import Path

from selftrain.champion.drift import history
from selftrain.champion.registry import Registry
from selftrain.store.store import Store
from tests.command import selftrain

SMALL = (
    "problems.languages=[py]",
    "problems.sizes={sft: 5000, rl: 800, validation: 40, test: 160}",
    "sft={epochs: 5, batch_size: 32, micro_batch_size: 32, learning_rate: 3.0e-3}",
    "sample.evaluation=8",
    "ppo.rollout_batch=64",
    "ppo.steps=2",
    "runtime.processes=1",
)
STEPS = (
    ("the first, hardly trained", "reward.learning_rate=1.0e-7", "not promoted"),
    ("better", "reward.learning_rate=1.0e-3", "promoted"),
    ("equal", "reward.patience=4", "not promoted"),
    ("worse", "reward.learning_rate=2.0e-7", "not promoted"),
)


def main() -> int:
    """Run it."""
    folder = Path(sys.argv[1])
    registry = Registry(Store(str(folder / "store")), "demo")
    for what, setting, _ in STEPS[len(registry.records()) :]:
        settings = [
            part for item in (*SMALL, setting, f"store={folder / 'store'}") for part in ("--set", item)
        ]
        done = selftrain(
            "run", "demo", "--champion", "--rounds", "1", *settings, "--out", str(folder / "out")
        )
        print(f"{what}: {(done.stdout.splitlines() or [done.stderr[-3000:]])[-1]}", flush=True)
        if done.returncode:
            return 1
    records = registry.records()
    print(history("demo", records))
    return int([record.decision for record in records] != [decision for _, _, decision in STEPS])


if __name__ == "__main__":
    sys.exit(main())
