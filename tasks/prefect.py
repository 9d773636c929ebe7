"""Carries out a run's steps as Prefect tasks, cached by the stage's key and retried after failures that may pass.

The manifest in the store decides whether an artifact exists. Prefect's own result contains only a reference to the artifact;
because of it, the UI shows a finished step as Cached. If the store has lost the artifact, the task runs with `refresh_cache`.
"""

import contextvars
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from prefect import State, get_run_logger, task
from prefect.cache_policies import CacheKeyFnPolicy
from prefect.filesystems import RemoteFileSystem
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL
from prefect.tasks import exponential_backoff
from prefect.utilities.annotations import quote

from sandbox.errors import SandboxError
from selftrain.cache_key import fingerprint
from selftrain.errors import SelftrainError, UsageError
from selftrain.stage import Context
from selftrain.store.artifact_cache import cache_folder
from selftrain.store.files import PATIENT
from selftrain.store.runfolder import new_id
from tasks.dask import share_out
from tasks.display import ChildLog, Progress, show_report, show_table, task_name
from tasks.events import emit_built
from tasks.figures import keep_built, keep_hit, keep_success
from tasks.run import Run, Step
from tasks.schedule import ScheduledRun
from tasks.slots import Slots, check_limits
from tasks.tags import RESOURCES, occupies, tags
from tasks.track import track

RETRIES = 3
"""Number of retries of a stage whose failure `_retryable` accepts."""
BACKOFF_SECONDS = 5
"""Seconds before the first retry; each further retry waits twice as long."""


@dataclass
class PrefectRun(ScheduledRun):
    """A run inside a Prefect flow: each step is a task run."""

    def __post_init__(self) -> None:
        self.id = new_id(flow_run.id)
        if self.config.runtime.dask is not None:
            check_dask()
        check_limits(name for name in RESOURCES if name != "gpu" or self.config.runtime.device == "cuda")

    def share(self, step: Step, context: Context) -> None:
        """If `runtime.dask` is set, let Dask workers build the step's shards; each part of them is a task run too."""
        if self.config.runtime.dask is not None:
            share_out(self, step, context, self.flow_context)

    @cached_property
    def result_storage(self) -> Path | RemoteFileSystem:
        """The folder of Prefect's results: in the store, so that all workers share it.

        Prefect saves the storage block on its server, which must not contain credentials. If the store's credentials do not come
        from the environment, results therefore stay on this machine, and the same task on another one is Completed, not Cached.
        """
        store = self.store
        if not store.is_local and not store.has_options:
            settings = {"use_listings_cache": False} | (PATIENT if store.files.is_s3 else {})
            block = RemoteFileSystem(basepath=f"{store.url.rstrip('/')}/.prefect", settings=settings)
            block.save(f"selftrain-store-{fingerprint(store.url)}", overwrite=True, _sync=True)
            return block
        folder = Path(store.root if store.is_local else cache_folder()) / ".prefect"
        with store.writing():
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def complete(self) -> None:
        """Carry out all steps that were planned, as task runs."""
        self.flow_context = contextvars.copy_context()
        self.states: dict[str, State[Any]] = {}
        # Computed once, before several threads ask for them.
        _ = self.result_storage, self.commit, self.libraries
        super().complete()

    @contextmanager
    def spare(self, step: Step) -> Iterator[bool]:
        """The slots that `step` needs, if the server has them free."""
        used = occupies(step, self.config.runtime)
        with Slots(used, step.label, get_run_logger(), patient=False) as slots:
            yield slots.held

    def attempt(self, step: Step, progress: Callable[..., None], log: Callable[[str], None]) -> bool:
        """As `Run.attempt`, in the slots that the step needs; a corrupt input is rebuilt in its own, while this step holds none."""
        # Before the store's lock is taken, so that no other run waits for one that waits. What the store has needs no slot.
        used = () if self.is_there(step.ref) else occupies(step, self.config.runtime)
        with Slots(used, step.label, get_run_logger()) as slots:
            return super().attempt(step, slots.watch(progress), log)

    def execute(self, step: Step, there: bool) -> None:
        """Run the step as a task. The task is Cached if the store has the artifact (`there`) and Prefect has its result."""
        if there:
            keep_hit(self, step)
        made = make_artifact.with_options(
            name=step.stage.name,
            task_run_name=task_name(step.label),
            tags=tags(step, self.config.runtime),
            retries=RETRIES,
            # Set together with `retries`: Prefect computes the list of delays at once, for the number of retries it knows then.
            retry_delay_seconds=exponential_backoff(backoff_factor=BACKOFF_SECONDS),
            refresh_cache=not there,
            result_storage=self.result_storage,
        )
        # The edges of the UI's graph are those of `wait_for`, each once. In the arguments and the results of tasks, Prefect would
        # find objects of other tasks and draw further ones: the arguments are quoted, and the states have a constant as their result.
        before = [self.states[name] for name in self.schedule.needs[step.name]]
        state = made(quote(self), quote(step), wait_for=before, return_state=True)
        if not state.is_completed():
            state.result()  # raises what the task raised
        self.states[step.name] = state.model_copy(update={"data": True})

    def record(self, finished: bool) -> None:
        """As `Run.record`; a run that is finished is a figure too."""
        super().record(finished)
        if finished:
            keep_success(self)


def check_dask() -> None:
    """Raise UsageError if Dask workers cannot be used: no package prefect-dask, or no server."""
    if importlib.util.find_spec("prefect_dask") is None:
        raise UsageError(
            "runtime.dask needs the package prefect-dask; run `pip install 'selftrain[dask]'`, or set runtime.dask to null"
        )
    if not PREFECT_API_URL.value():
        raise UsageError(
            "runtime.dask needs a Prefect server that the Dask workers reach, and PREFECT_API_URL is not set; start one with "
            "`make server` and set PREFECT_API_URL to its address"
        )


def _key(_: Any, arguments: dict[str, Any]) -> str:
    return str(arguments["step"].ref).replace("/", "-")


def _retryable(_: Any, __: Any, state: Any) -> bool:
    """Whether to retry: only failures that may pass. A config error or a bug would fail again."""
    try:
        state.result()
    except SelftrainError as error:
        return error.retryable
    except SandboxError as error:
        return getattr(error, "exit_code", 1) != 2
    except BaseException:
        return False
    return False


@task(
    cache_policy=CacheKeyFnPolicy(cache_key_fn=_key),
    persist_result=True,
    result_serializer="json",
    retry_condition_fn=_retryable,
)
def make_artifact(run: Run, step: Step) -> dict[str, str]:
    """Build one artifact and show its metrics in the UI; returns its reference as JSON values."""
    logger = get_run_logger()
    logger.info("%s: building %s", step.label, step.ref)
    try:
        with ChildLog(logger) as log:
            built = run.build(step, Progress(run.config.name, step, logger), log)
    except UsageError as error:
        logger.error("%s", error)
        raise
    manifest = run.store.manifest(step.ref) or {}
    logger.info("%s: %s in %.1f s", step.label, "built" if built else "found", manifest.get("seconds", 0.0))
    if step.stage.name == "report":
        show_report(run, step)
    else:
        show_table(run, step, manifest)
    if built:
        track(run, step, manifest)
        emit_built(run, step, manifest)
        keep_built(run, step, manifest)
    return {"stage": step.ref.stage, "key": step.ref.key}
