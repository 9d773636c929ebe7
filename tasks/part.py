"""Builds some shards of one stage on a Dask worker: `python -m tasks.part resolved.json` (see `tasks.dask`)."""

from functools import partial
from typing import Any

from selftrain.config import RuntimeConfig, Strict
from selftrain.errors import UsageError
from selftrain.launch.launch import Child, child_main, report_progress
from selftrain.stage import ArtifactRef, Context, Outcome, Stage
from selftrain.stages.execute import EXECUTE, ExecuteSlice
from selftrain.stages.sample import SAMPLE, SampleSlice
from selftrain.store.store import PROGRESS, Store
from tasks.credentials import storage_options
from tasks.sandbox import sandbox_at_work

STAGES: dict[str, tuple[Stage, type[Strict]]] = {
    "sample": (SAMPLE, SampleSlice),
    "execute": (EXECUTE, ExecuteSlice),
}
"""The stages that have shards, each with the class of its config slice."""


class Part(Strict):
    """Some shards of one stage, which one Dask worker builds; sent to the worker as JSON values.

    run          name of the run's config
    name, label  of the part, with the meaning that they have in `tasks.run.Step`
    store        folder or URL
    store_block  as in the config; the worker reads the block's content from the Prefect server
    stage, key   the artifact that the shards belong to
    settings     the stage's config slice
    inputs       name -> (stage, key)
    only         names of the shards to build
    """

    run: str
    name: str
    label: str
    store: str
    store_block: str | None
    stage: str
    key: str
    settings: dict[str, Any]
    inputs: dict[str, tuple[str, str]]
    runtime: RuntimeConfig
    only: tuple[str, ...]


def make(child: Child) -> Outcome:
    """Build the part's shards and upload each to the store when it is finished."""
    part = Part.model_validate(child.config)
    options = storage_options(part.store_block)
    store = Store(part.store, options=options, cache_gib=part.runtime.cache_gib)
    stage, kind = STAGES[part.stage]
    settings = kind.model_validate(part.settings)
    inputs = {name: ArtifactRef(*ref) for name, ref in part.inputs.items()}
    ref = stage.ref(settings, **inputs)
    if ref.key != part.key:
        raise UsageError(
            f"{part.label}: here its key is {ref.key}, in the run {part.key}; the Dask worker has another version of "
            "selftrain: install the run's on all machines"
        )
    folder = child.folder / "build"
    store.get_progress(ref, folder / PROGRESS)  # shards that another worker finished before it died
    stored = {name for name in part.only if (folder / PROGRESS / name).is_file()}

    def keep() -> None:
        for name in part.only:
            path = folder / PROGRESS / name
            if name not in stored and path.is_file():
                store.put_progress(ref, name, path)
                stored.add(name)

    def progress(
        done: float, total: float, unit: str = "", figures: dict[str, float | str] | None = None
    ) -> None:
        keep()
        report_progress(done, total, unit, **(figures or {}))

    context = Context(
        config=settings,
        inputs={name: store.path(ref) for name, ref in inputs.items()},
        folder=folder,
        runtime=part.runtime,
        progress=progress,
        log=lambda line: print(line, flush=True),
        shared=store.local,
        only=part.only,
        sandbox=partial(sandbox_at_work, part.runtime),
    )
    try:
        stage.run(context)
    finally:
        keep()
    return Outcome("", {"shards": len(stored)})


if __name__ == "__main__":
    child_main(make)
