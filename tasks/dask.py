"""Distributes the shards of a stage to the Dask workers of `runtime.dask`, through Prefect's Dask task runner.

The run divides the missing shards into parts and sends each part as plain data (`tasks.part.Part`). A worker builds its part in
a child process, which uploads each finished shard to the store. If a worker is lost, another worker resumes the part: it builds
only the shards that are not in the store.
"""

import contextvars
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from selftrain.cache_key import canonical_json
from selftrain.errors import RunError, SelftrainError
from selftrain.launch.launch import launch
from selftrain.stage import Context
from selftrain.store.store import PROGRESS
from tasks.display import ChildLog, Progress, task_name
from tasks.part import Part
from tasks.run import Run, Step
from tasks.tags import tags

CONNECT_SECONDS = 30
"""Longest wait for the scheduler's answer."""
WORKER_SECONDS = 120
"""Longest wait for the first worker."""


def share_out(run: Run, step: Step, context: Context, flow: contextvars.Context) -> None:
    """Have Dask workers build the missing shards, and download all shards into the progress folder of `context`.

    flow  the flow's context variables; with them, the parts are task runs of the flow

    Raises the error of a failed part once all parts have ended, and RunError if there is no scheduler or no worker.
    """
    assert step.stage.shards is not None
    assert run.config.runtime.dask is not None
    from prefect_dask import DaskTaskRunner

    folder = context.folder / PROGRESS
    run.store.get_progress(step.ref, folder)
    missing = [name for name in step.stage.shards(context) if not (folder / name).is_file()]
    if not missing:
        return
    address = run.config.runtime.dask
    with DaskTaskRunner(address=address, client_kwargs={"timeout": CONNECT_SECONDS}) as runner:
        count = min(run.config.runtime.parts or workers(runner, address), len(missing))
        futures = []
        for number in range(1, count + 1):
            part = part_of(run, step, missing[number - 1 :: count], number, count)
            made = make_part.with_options(task_run_name=part["label"], tags=tags(step, run.config.runtime))
            # Submit in the flow's context: Prefect pickles the current context, and the task's context contains the Run object.
            # A copy: two steps may submit at once, and a context is entered by one thread at a time.
            futures.append(flow.copy().run(runner.submit, made, {"part": part}))
        errors = []
        for done, future in enumerate(futures, 1):
            try:
                future.result()
            except Exception as error:
                errors.append(error)
            context.progress(done, count, "parts")
    if errors:
        if isinstance(errors[0], SelftrainError):
            raise errors[0]
        raise Lost(f"Dask gave up a part of {step.label}: {errors[0]}; see the logs of the Dask workers")
    run.store.get_progress(step.ref, folder)


class Lost(RunError):
    """Dask gave up on a part, e.g. because every worker that took it died; or no worker answered."""

    retryable = True


def workers(runner: Any, address: str) -> int:
    """Wait for the first worker; returns the number of workers. Raises Lost after WORKER_SECONDS without a worker."""
    try:
        runner.client.wait_for_workers(1, timeout=WORKER_SECONDS)
    except OSError as error:  # includes TimeoutError
        raise Lost(
            f"runtime.dask: no scheduler with a worker at {address} ({error}); start `dask scheduler`, and on each machine "
            f"`dask worker {address} --nthreads 1`"
        ) from error
    return len(runner.client.scheduler_info(n_workers=-1)["workers"])


def part_of(run: Run, step: Step, names: list[str], number: int, count: int) -> dict[str, Any]:
    """Part `number` of `count`, which builds the shards `names`, as JSON values."""
    part = Part(
        run=run.config.name,
        name=f"{step.name}-part-{number}",
        label=task_name(f"{step.label} · part {number} of {count}"),
        store=run.store.root if run.store.is_local else run.store.url,
        store_block=run.config.store_block,
        stage=step.ref.stage,
        key=step.ref.key,
        settings=canonical_json(step.config, step.name),
        inputs={name: (ref.stage, ref.key) for name, ref in step.inputs.items()},
        runtime=run.config.runtime,
        only=tuple(names),
    )
    return part.model_dump(mode="json")


@task(cache_policy=NO_CACHE, persist_result=False)
def make_part(part: dict[str, Any]) -> int:
    """Runs on a Dask worker: build a part's shards and upload them to the store; returns the number of shards."""
    from distributed import get_worker

    logger = get_run_logger()
    found = Part.model_validate(part)
    cancel_reason = until_released()
    directory = get_worker().local_directory  # Dask deletes it after the worker is killed
    with (
        tempfile.TemporaryDirectory(prefix=f"{found.stage}-", dir=directory) as folder,
        ChildLog(logger) as log,
    ):
        context = Context(found, {}, Path(folder), found.runtime, Progress(found.run, found, logger), log=log)
        try:
            launch("tasks.part", context, cancel_reason=cancel_reason)
        except SelftrainError as error:
            if cancel_reason():
                raise RunError(f"{found.label} was ended: {cancel_reason()}") from error
            raise
    return len(found.only)


def until_released() -> Callable[[], str | None]:
    """Return a function that tells why the running Dask task must stop, or None while it may go on.

    The task must stop when its flow was cancelled or died.
    """
    from distributed import get_worker

    worker = get_worker()
    key = worker.get_current_task()

    def cancel_reason() -> str | None:
        state = getattr(worker.state.tasks.get(key), "state", "released")
        return None if state == "executing" else f"its flow run no longer waits for it ({state})"

    return cancel_reason
