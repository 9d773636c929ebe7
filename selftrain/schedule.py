"""Decides which steps of a run go on at the same time: those whose inputs are there, within the slots of `runtime.slots`.

All keys are known before anything runs, so the whole graph is known too. A step that may start has the place of its plan as its
priority: the method lists evaluation pools last, so they fill the time in which the steps of the rounds leave a slot free. Nothing
here depends on a result: a run that would have to plan by results (a number of rounds that is open, say) plans each round anew.
"""

import heapq
from collections.abc import Iterable, Mapping

from selftrain.config import SlotsConfig
from selftrain.stage import ArtifactRef, Step

TRAIN, SANDBOX = "train", "sandbox"
MODELS = frozenset({"sft", "sample", "train_reward", "ppo", "evaluate"})
"""Stages that train, sample or score. `mine` does where a reranker scores."""
JUDGED = frozenset({"prepare", "execute", "agree"})
"""Stages that judge programs."""


def runs_a_model(step: Step) -> bool:
    """Whether the step trains, samples or scores."""
    return step.stage.name in MODELS or (step.stage.name == "mine" and "reranker" in step.inputs)


def resources(step: Step) -> frozenset[str]:
    """The slots that a step holds while it works: `train` for the devices of models, `sandbox`, both, or none."""
    held = set()
    if runs_a_model(step):
        held.add(TRAIN)
    # `ppo` and `mine` judge programs where their slices name the limits of programs.
    if step.stage.name in JUDGED or getattr(step.config, "execute", None) is not None:
        held.add(SANDBOX)
    return frozenset(held)


class Schedule:
    """The order in which steps start.

    needs    name of a step -> names of the steps that make its inputs, each once
    running  steps that have been taken and have not ended, by name
    early    the step whose candidates are executed while they are sampled; it holds its slots, and gives them up to any other
    """

    def __init__(self, steps: Iterable[Step], slots: SlotsConfig) -> None:
        self.slots = slots
        self.needs: dict[str, tuple[str, ...]] = {}
        self.running: dict[str, Step] = {}
        self.early: Step | None = None
        self._waiting: list[Step] = list(steps)
        self._ended: set[str] = set()
        self._early_over: set[str] = set()
        makers: dict[ArtifactRef, str] = {}
        for step in self._waiting:
            # A second step with the same artifact finds it when the first has ended.
            wanted = (*step.inputs.values(), step.ref)
            self.needs[step.name] = tuple(dict.fromkeys(makers[ref] for ref in wanted if ref in makers))
            makers.setdefault(step.ref, step.name)

    def take(self) -> Step | None:
        """The next step to start, which counts as running from now on; None: none may start now."""
        for step in self._ready():
            # `early` itself starts when nothing works on it ahead any more.
            if step is not self.early and self._fits(step, self.early):
                self._waiting.remove(step)
                self.running[step.name] = step
                return step
        return None

    def take_early(self) -> tuple[Step, Step] | None:
        """A step `execute` that could work on what its step `sample` has sampled so far, with that step; it is `early` then."""
        for step in self._waiting:
            before = [name for name in self.needs[step.name] if name not in self._ended]
            may = step.stage.name == "execute" and step.name not in self._early_over and self.early is None
            if not may or len(before) != 1:
                continue
            maker = self.running.get(before[0])
            if maker is not None and maker.stage.name == "sample" and self._fits(step):
                self.early = step
                return step, maker
        return None

    def end_early(self, again: bool) -> None:
        """The step `early` works no more; `again`: it may go on later."""
        if self.early is not None and not again:
            self._early_over.add(self.early.name)
        self.early = None

    def wanted(self) -> bool:
        """Whether a step could start now if `early` gave up its slots."""
        return self.early is not None and any(map(self._fits, self._ready()))

    def end(self, name: str) -> None:
        """The step `name` has ended well."""
        del self.running[name]
        self._ended.add(name)

    def _ready(self) -> list[Step]:
        return [step for step in self._waiting if self._ended.issuperset(self.needs[step.name])]

    def _fits(self, step: Step, early: Step | None = None) -> bool:
        """Whether slots are free for the step, beside the running steps and `early`."""
        others = [*self.running.values(), *([early] if early is not None else [])]
        if self.slots.steps is not None and len(others) >= self.slots.steps:
            return False
        held = [name for other in others for name in resources(other)]
        return all(held.count(name) < getattr(self.slots, name) for name in resources(step))


def timeline(
    steps: Iterable[Step], slots: SlotsConfig, seconds: Mapping[str, float]
) -> dict[str, tuple[float, float]]:
    """Name of each step -> the seconds at which it starts and ends, if each takes `seconds`."""
    schedule = Schedule(steps, slots)
    now, found = 0.0, {}
    ends: list[tuple[float, str]] = []
    while True:
        while (step := schedule.take()) is not None:
            found[step.name] = now, now + seconds[step.name]
            heapq.heappush(ends, (found[step.name][1], step.name))
        if not ends:
            return found
        now, name = heapq.heappop(ends)
        schedule.end(name)
