"""What a stage is, and the key that names what it makes.

A stage is inert: a name, a version and a function. `Stage.ref` computes the key of its artifact without running anything;
`tasks.run.Run.build` runs it, and `Store.build` stores what it wrote.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from sandbox.verdicts import Program, Result
from selftrain.cache_key import fingerprint, identity
from selftrain.errors import UsageError

CHILD_LOG = logging.getLogger("selftrain.launch.child").debug
"""The default destination of lines that child processes print."""


@dataclass(frozen=True)
class ArtifactRef:
    """Names one artifact: the stage that makes it and its key."""

    stage: str
    key: str

    def __str__(self) -> str:
        return f"{self.stage}/{self.key}"

    @classmethod
    def parse(cls, text: str) -> "ArtifactRef":
        """The reference that `str` wrote."""
        stage, _, key = text.partition("/")
        return cls(stage, key)


@dataclass(frozen=True)
class Outcome:
    """What a stage reports about what it wrote.

    records_digest  sha256 of the result columns (`records.digest`) or of the result's content; the same for every
                    undisturbed or resumed run of one key on one machine
    metrics         figures for tables and reports, JSON values
    """

    records_digest: str
    metrics: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """One step of the method.

    name     directory in the store
    version  to be raised when the same config and inputs give another result
    run      writes the artifact's files, given a `Context`
    shards   names of the files in the progress folder that `run` makes one by one and then merges; None: no shards
    trains   whether `run` leaves checkpoints in the progress folder, to resume from
    """

    name: str
    version: int
    run: "Callable[[Context], Outcome]"
    shards: "Callable[[Context], list[str]] | None" = None
    trains: bool = False

    def identity(self, config: Any, inputs: Mapping[str, ArtifactRef]) -> dict[str, Any]:
        """What the cache key is computed from, as JSON values; `selftrain why` compares it between runs."""
        return identity(self.name, self.version, config, inputs)

    def ref(self, config: Any, **inputs: ArtifactRef) -> ArtifactRef:
        """The artifact that this stage makes of `config` (model, dataclass or dict) and `inputs`."""
        return ArtifactRef(self.name, fingerprint(self.identity(config, inputs)))


class Judge(Protocol):
    """An open sandbox (`sandbox.client.Sandbox`)."""

    backend: Any

    def identity(self, language: str) -> str:
        """What verdicts on programs in `language` depend on."""
        ...

    def run(self, programs: Iterable[Program]) -> Iterator[Result]:
        """The results of `programs`, in the order in which the programs end."""
        ...


def no_sandbox() -> AbstractContextManager[Judge]:
    """Raises `UsageError`: this context has no sandbox."""
    raise UsageError(
        "this stage judges programs, and its context has no sandbox; give it Context(sandbox=...)"
    )


@dataclass(frozen=True)
class Context:
    """What a stage's `run` is given.

    config   the slice of the run's config that can change the result
    inputs   verified local directories of the input artifacts, by name
    folder   where to write; what an earlier, killed run of this key left is still there
    runtime  workers, processes, device: settings that cannot change the result
    progress called with (done, total, unit, figures) now and then
    log      takes lines that child processes print
    shared   a local folder for caches that runs of one store share; None: no caches
    manifests  of all stages before this one, by label; only `report` reads them, for what was measured
    only     names of the shards to make, of a stage that has them: nothing is merged then; None: the whole stage
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
        """Whether this run is to make the shard of this name."""
        return self.only is None or shard in self.only

    def judge(self, programs: Collection[Program], what: str) -> Iterator[Result]:
        """The results of `programs` as they come, with progress in units of `what`. Without programs no sandbox is opened."""
        if programs:
            with self.sandbox() as sandbox:
                for done, result in enumerate(sandbox.run(programs), 1):
                    self.progress(done, len(programs), what)
                    yield result
