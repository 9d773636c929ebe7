"""A run: its config, its store, and the artifacts of its stages so far. Each stage's task calls `Run.do`."""

import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial
from importlib import metadata
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeVar

from selftrain.config import RunConfig, Strict
from selftrain.errors import CorruptArtifact, StoreError
from selftrain.plan.speed import where
from selftrain.stage import CHILD_LOG, ArtifactRef, Context, Stage, Step
from selftrain.stop import current
from selftrain.store.runfile import NAME
from selftrain.store.runfolder import new_id
from selftrain.store.store import Store, replace_file
from tasks.commit import git_commit
from tasks.progress import Clock, watch
from tasks.sandbox import sandbox_at_work

PACKAGES = (
    "torch",
    "transformers",
    "trl",
    "deepspeed",
    "accelerate",
    "datasets",
    "prefect",
    "ctranslate2",
    "tokenizers",
)
"""Libraries whose versions are recorded in manifests."""

LOGGER = logging.getLogger("selftrain")

Settings = TypeVar("Settings", bound=Strict)


def with_defaults(settings: Settings, *unused: str) -> Settings:
    """`settings` with the `unused` fields reset to their defaults, so that a key depends on no setting that has no effect."""
    return settings.model_copy(update={name: type(settings).model_fields[name].default for name in unused})


@dataclass
class Run:
    """Plans steps: this class computes keys and cache hits but builds nothing, as a dry run needs it. The subclass
    `tasks.schedule.ScheduledRun` carries the steps out when all are planned, and `tasks.prefect.PrefectRun` does so in task runs.

    steps      the steps so far, by name
    begun      names of the steps that have begun
    unfinished names of those of them that have not come to a good end
    cached     names of the steps whose artifact was in the store
    toolchain  language -> the sandbox's identity for it, read once per run
    content    digests of the problem source, computed once per run
    """

    config: RunConfig
    store: Store
    steps: dict[str, Step] = field(default_factory=dict)
    cached: list[str] = field(default_factory=list)
    begun: set[str] = field(default_factory=set)
    unfinished: set[str] = field(default_factory=set)
    toolchain: dict[str, str] = field(default_factory=dict)
    content: dict[str, Any] = field(default_factory=dict)
    started: float = field(default_factory=time.time)
    clock: float = field(default_factory=time.monotonic)
    id: str = field(default_factory=new_id)
    out: Path | None = None
    """The run's folder; None before run.json is written for the first time."""

    def do(
        self,
        stage: Stage,
        name: str,
        config: Any,
        inputs: Mapping[str, ArtifactRef],
        label: str | None = None,
    ) -> ArtifactRef:
        """Plan a step: the artifact of `stage` from `config` and `inputs`; returns its reference."""
        ref = stage.ref(config, **inputs)
        step = Step(stage, name, label or name, config, inputs, ref)
        self.steps[name] = step
        self.take(step)
        return ref

    def take(self, step: Step) -> None:
        """Hook, called once per step in the order of the method: here the step is carried out at once."""
        self.begun.add(step.name)
        self.unfinished = {step.name}
        self.update()
        self.work(step)

    def complete(self) -> None:
        """Hook, called when all steps are planned: a subclass that only notes them carries them out here."""

    def work(self, step: Step) -> None:
        """Carry out one step, whose inputs are there: note whether the store has its artifact, and build it unless it has."""
        there = self.is_there(step.ref)
        if there:
            self.cached.append(step.name)
        self.execute(step, there)

    def update(self) -> None:
        """Write run.json, if the run has a folder; a failure is logged only."""
        if self.out is not None:
            try:
                self.write(self.out, finished=False)
            except OSError as error:
                LOGGER.warning("cannot update run.json in the run's folder: %s", error)

    def is_there(self, ref: ArtifactRef) -> bool:
        """Whether the store has the complete artifact."""
        return self.store.has(ref)

    def execute(self, step: Step, there: bool) -> None:
        """Hook, called once per step: a subclass builds the artifact here. `there`: whether the store has it already."""

    def share(self, step: Step, context: Context) -> None:
        """Hook, called before a stage with shards runs: other machines may build shards, which the stage then only merges."""

    def build(self, step: Step, progress: Any = None, log: Callable[[str], None] = CHILD_LOG) -> bool:
        """Build the step's artifact in this process and its children; False on a cache hit. A corrupt input is rebuilt, once."""
        rebuilt: set[str] = set()
        while True:
            try:
                return self.attempt(step, progress or watch(step.label), log)
            except CorruptArtifact as error:
                again = error.artifact in rebuilt
                if again or error.artifact not in map(str, step.inputs.values()):
                    raise
                rebuilt.add(error.artifact)
                self.rebuild(error)

    def attempt(self, step: Step, progress: Callable[..., None], log: Callable[[str], None]) -> bool:
        """Build the step's artifact once. Raises CorruptArtifact for an input too; a subclass takes here what the work occupies."""
        LOGGER.debug("building %s", step.ref)
        stop = current()
        clock = Clock(progress)

        def make(folder: Path) -> Any:
            context = self.context(
                step,
                folder,
                inputs={name: self.store.path(ref) for name, ref in step.inputs.items()},
                progress=clock,
                log=log,
                manifests={
                    other.name: self.store.manifest(other.ref) or {}
                    for other in takewhile(lambda other: other is not step, self.steps.values())
                },
            )
            stop.check()
            if step.stage.shards is not None:
                self.share(step, context)
            try:
                with self._sharing_checkpoints(step, folder):
                    outcome = step.stage.run(context)
            except Exception:
                stop.check()  # whatever it raised: its children and its sandbox were ended
                raise
            if clock.pace:
                record["pace"] = clock.pace | where(self.config)
            return outcome

        record = step.stage.identity(step.config, step.inputs) | {
            "name": step.name,
            "label": step.label,
            "seed": self.config.seed,
            "git_commit": self.commit,
            "libraries": self.libraries,
        }
        return self.store.build(step.ref, record, make)

    def context(self, step: Step, folder: Path, **other: Any) -> Context:
        """What a stage is told of this run. `other`: further fields of `Context`, of which `inputs` and `progress` are needed."""
        return Context(
            config=step.config,
            folder=folder,
            runtime=self.config.runtime,
            shared=self.store.local,
            sandbox=partial(sandbox_at_work, self.config.runtime),
            **other,
        )

    def _sharing_checkpoints(self, step: Step, folder: Path) -> AbstractContextManager[None]:
        """Copies a training stage's checkpoints to a remote store while it runs, if `runtime.share_checkpoints` allows it."""
        runtime = self.config.runtime
        shared = runtime.deepspeed is None if runtime.share_checkpoints is None else runtime.share_checkpoints
        if step.stage.trains and shared:
            return self.store.sharing_checkpoints(step.ref, folder)
        return nullcontext()

    def path(self, ref: ArtifactRef) -> Path:
        """The artifact's local folder. A corrupt artifact is rebuilt by the step that made it."""
        try:
            return self.store.path(ref)
        except CorruptArtifact as error:
            self.rebuild(error)
            return self.store.path(ref)

    def rebuild(self, error: CorruptArtifact) -> None:
        """Rebuild the artifact of `error` by the step that made it; raises `error` if no step of this run did."""
        makers = [step for step in self.steps.values() if str(step.ref) == error.artifact]
        if not makers:
            raise error
        LOGGER.warning("%s; it is rebuilt", error)
        self.build(makers[0])

    @property
    def stages(self) -> dict[str, dict[str, str]]:
        """Name of each step that has begun -> its artifact, as JSON values, in the order of the method."""
        begun = [step for step in self.steps.values() if step.name in self.begun]
        return {step.name: {"stage": step.ref.stage, "key": step.ref.key} for step in begun}

    @property
    def seconds(self) -> float:
        """Seconds since the run began, by the monotonic clock."""
        return time.monotonic() - self.clock

    @cached_property
    def commit(self) -> str | None:
        """The git commit of this code, None if it is not known."""
        return git_commit()

    @cached_property
    def libraries(self) -> dict[str, str]:
        """Versions of the installed libraries in `PACKAGES`, for manifests."""
        found = {}
        for name in PACKAGES:
            try:
                found[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                continue
        return found

    def write(self, out: Path, finished: bool, failed: str | None = None) -> None:
        """Write run.json: the config, the stages' keys and, in `failed`, why the run ended early (None: it did not)."""
        rerankers = [step for step in self.steps.values() if step.stage.name == "train_reward"]
        reranker = None
        if finished and rerankers:
            reranker = os.path.relpath(self.path(rerankers[-1].ref), out)
        content = {
            "name": self.config.name,
            "store": self.store.root if self.store.is_local else self.store.url,  # valid from any folder
            "finished": finished,
            "failed": failed,
            "started": self.started,
            "seconds": self.seconds,
            "git_commit": self.commit,
            "config": self.config.model_dump(mode="json"),
            "stages": self.stages,
            "unfinished": [name for name in self.steps if name in self.unfinished],
            "cached": self.cached,
            "reranker": reranker,
        }
        replace_file(out / NAME, json.dumps(content, indent=1).encode())
        self.out = out
        self.record(finished)

    def record(self, finished: bool) -> None:
        """Record in the store which artifacts this run uses, so that `selftrain gc` keeps them; called before each step."""
        try:
            self.store.record_run(
                self.config.name,
                self.id,
                {
                    "name": self.config.name,
                    "started": self.started,
                    "updated": time.time(),
                    "finished": time.time() if finished else None,
                    "stages": self.stages,
                    "config": self.config.model_dump(mode="json", exclude={"store"}),
                },
            )
        except StoreError as error:  # the next step tries again
            LOGGER.warning("cannot update the run's record in the store: %s", error)
