"""Defines a stage, the key of its artifact, and the context in which it runs.

A stage is only a name, a version and a function. `Stage.ref` computes the key of its artifact without running it;
`tasks.run.Run.build` runs it, and `Store.build` stores the files that it wrote.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from sandbox.verdicts import Program, Result
from selftrain.cache_key import canonical_json, fingerprint
from selftrain.errors import UsageError

CHILD_LOG = logging.getLogger("selftrain.launch.child").debug
"""The default destination of lines that child processes print."""


@dataclass(frozen=True)
class ArtifactRef:
    """Names one artifact: the stage that builds it, and its key."""

    stage: str
    key: str

    def __str__(self) -> str:
        return f"{self.stage}/{self.key}"

    @classmethod
    def parse(cls, text: str) -> "ArtifactRef":
        """Parse STAGE/KEY, the text that `str` returns."""
        stage, _, key = text.partition("/")
        return cls(stage, key)


@dataclass(frozen=True)
class Outcome:
    """What a stage reports about the artifact that it wrote.

    records_digest  sha256 of the result columns (`records.digest`) or of the result's content; the same for every
                    undisturbed or resumed run of one key on one machine
    metrics         JSON values for manifests, tables and reports
    """

    records_digest: str
    metrics: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """One step of the method.

    name     also the name of its directory in the store
    version  must be raised when the code gives another result for the same config and inputs
    run      writes the artifact's files, given a `Context`
    shards   names of the files in the progress folder that `run` builds one by one and then merges; None: no shards
    trains   whether `run` writes checkpoints into the progress folder and resumes from them
    """

    name: str
    version: int
    run: "Callable[[Context], Outcome]"
    shards: "Callable[[Context], list[str]] | None" = None
    trains: bool = False

    def identity(self, config: Any, inputs: Mapping[str, ArtifactRef]) -> dict[str, Any]:
        """What the cache key is computed from, as JSON values; `selftrain why` compares it between runs."""
        return {
            "stage": self.name,
            "version": self.version,
            "config": canonical_json(config, self.name, whole=False),
            "inputs": {name: str(ref) for name, ref in sorted(inputs.items())},
        }

    def ref(self, config: Any, **inputs: ArtifactRef) -> ArtifactRef:
        """The artifact that this stage builds from `config` (model or dict) and `inputs`."""
        return ArtifactRef(self.name, fingerprint(self.identity(config, inputs)))


@dataclass(frozen=True)
class Step:
    """One stage of one run: the stage, its config slice, its inputs, and the artifact that it builds (`ref`).

    name   short and unique in the run, e.g. `rm-2`; report.json refers to the step by it
    label  text for people, e.g. `train_reward · round 2`
    """

    stage: Stage
    name: str
    label: str
    config: Any
    inputs: Mapping[str, ArtifactRef]
    ref: ArtifactRef


class Judge(Protocol):
    """Interface of an open sandbox, which `sandbox.client.Sandbox` implements."""

    backend: Any

    def identity(self, language: str) -> str:
        """What verdicts on programs in `language` depend on."""
        ...

    def run(self, programs: Iterable[Program]) -> Iterator[Result]:
        """The results of `programs`, in the order in which the programs end."""
        ...


def no_sandbox() -> AbstractContextManager[Judge]:
    """Default of `Context.sandbox`. Raises `UsageError`: the context has no sandbox."""
    raise UsageError(
        "this stage judges programs, and its context has no sandbox; give it Context(sandbox=...)"
    )


@dataclass(frozen=True)
class Context:
    """The argument of a stage's `run`.

    config   the slice of the run's config that can change the result
    inputs   verified local directories of the input artifacts, by name
    folder   where to write; it still contains the files of an earlier attempt at this key that was killed
    runtime  workers, processes, device: settings that cannot change the result
    progress the stage calls it with (done, total, unit, figures) now and then
    log      called with each line that a child process prints
    shared   local folder for caches, which all runs with this store share; None: no caches
    manifests  name of an earlier step of the run -> its manifest; only `report` reads them, for measured values
    only     names of the shards to build, which are then not merged; None: the whole stage
    sandbox  opens the configured sandbox; the stage closes it
    """

    config: Any
    inputs: Mapping[str, Path]
    folder: Path
    runtime: Any
    progress: Callable[..., None]
    manifests: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    shared: Path | None = None
    log: Callable[[str], None] = CHILD_LOG
    only: tuple[str, ...] | None = None
    sandbox: Callable[[], AbstractContextManager[Judge]] = no_sandbox

    def wants(self, shard: str) -> bool:
        """Whether to build the shard of this name."""
        return self.only is None or shard in self.only

    def judge(self, programs: Collection[Program], what: str) -> Iterator[Result]:
        """Run `programs` in the sandbox; yields results as programs end, and reports progress in units of `what`.

        Opens no sandbox if there are no programs.
        """
        if programs:
            with self.sandbox() as sandbox:
                for done, result in enumerate(sandbox.run(programs), 1):
                    self.progress(done, len(programs), what)
                    yield result
