"""Benchmark: wall time of a run whose stages overlap, against its critical path and against one stage after the other.

Each stage is a stand-in that waits, with the proportions of a machine with GPUs: a GPU's stage and a
sandbox's stage that wait use no processor, so two cores show what two machines' parts would. The steps, their order, slots and
threads are a run's own, without Prefect.
"""

import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from flows.method import graph
from selftrain.config import ExecuteConfig, RunConfig, SlotsConfig
from selftrain.schedule import SANDBOX, TRAIN, Schedule, resources
from selftrain.stage import Context, Outcome, Step
from selftrain.store.store import Store
from tasks.schedule import ScheduledRun

SECONDS = {
    "prepare": 0.3, "sft": 4.0, "sample": 3.0, "execute": 2.5, "mine": 0.3, "train_reward": 3.0, "ppo": 5.0, "evaluate": 1.5, "report": 0.1,
}  # fmt: skip
"""Stage -> seconds that its stand-in waits."""


class Building(ScheduledRun):
    """Builds its steps in threads."""

    def execute(self, step: Step, there: bool) -> None:
        """Build the step."""
        self.build(step)

    def ahead(self, *_: object) -> None:
        """Stand-ins sample nothing."""


@dataclass(frozen=True)
class Waiting:
    """The config slice of a stand-in. `execute`: as in the stage's own slice, which tells that it uses the sandbox."""

    name: str
    seconds: float
    execute: ExecuteConfig | None


def wait(context: Context) -> Outcome:
    """A stage that waits."""
    time.sleep(context.config.seconds)
    (context.folder / "waited").write_text(context.config.name)
    return Outcome(context.config.name)


def critical_path(steps: Iterable[Step], slots: SlotsConfig, seconds: Mapping[str, float]) -> float:
    """The least time in which steps can end: the longest chain of inputs, or the work for one kind of slot if that is longer."""
    steps = list(steps)
    needs, chain = Schedule(steps, slots).needs, dict[str, float]()
    for step in steps:
        chain[step.name] = seconds[step.name] + max((chain[name] for name in needs[step.name]), default=0.0)
    work = [
        sum(seconds[step.name] for step in steps if name in resources(step)) / getattr(slots, name)
        for name in (TRAIN, SANDBOX)
    ]
    return max(0.0, *chain.values(), *work)


def main(unit: float = 1.0) -> None:
    """Print both wall times and the critical path. `unit`: factor of the seconds."""
    steps = graph(RunConfig(rounds=3))
    seconds = {step.name: unit * SECONDS[step.stage.name] for step in steps}
    least = critical_path(steps, SlotsConfig(), seconds)
    before = wall(steps, seconds, SlotsConfig(steps=1))
    after = wall(steps, seconds, SlotsConfig())
    print(f"{len(steps)} stages, {sum(seconds.values()):.1f} s one after the other: {before:.1f} s")
    print(
        f"overlapping (train 1, sandbox 1): {after:.1f} s, critical path {least:.1f} s: {after / least:.2f} of it (goal: 1.1)"
    )


def wall(steps: list[Step], seconds: dict[str, float], slots: SlotsConfig) -> float:
    """Seconds of a run of stand-ins of `steps`."""
    with tempfile.TemporaryDirectory() as folder:
        config = RunConfig(rounds=3)
        config = config.model_copy(update={"runtime": config.runtime.model_copy(update={"slots": slots})})
        run = Building(config, Store(str(Path(folder) / "store")))
        for step in stand_ins(steps, seconds):
            run.steps[step.name] = step
        started = time.monotonic()
        run.complete()
        took = time.monotonic() - started
        assert all(run.is_there(step.ref) for step in run.steps.values())
        return took


def stand_ins(steps: list[Step], seconds: dict[str, float]) -> list[Step]:
    """The steps with stages that wait, which hold the same slots."""
    refs, found = {}, []
    for step in steps:
        stage = replace(step.stage, run=wait, shards=None, trains=False)
        inputs = {name: refs[ref] for name, ref in step.inputs.items()}
        config = Waiting(step.name, seconds[step.name], getattr(step.config, "execute", None))
        refs[step.ref] = stage.ref(config, **inputs)
        found.append(replace(step, stage=stage, config=config, inputs=inputs, ref=refs[step.ref]))
    return found


if __name__ == "__main__":
    main()
