"""Runs the computation of a stage in a child process, or in several ranks under torchrun or DeepSpeed's launcher.

The parent writes `resolved.json`. The child reads it, prints progress lines, and writes its files and `outcome.json`. The
child's stdin is a pipe from the parent. The kernel closes the pipe when the parent dies for any reason, and then the child exits.
"""

import gc
import json
import os
import subprocess
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from pydantic import BaseModel

from selftrain.cache_key import canonical_json
from selftrain.config import RuntimeConfig
from selftrain.errors import ChildFailed, RunError, SelftrainError, UsageError
from selftrain.launch import commands, forkserver, ranks
from selftrain.launch.heartbeat import Beat, Heartbeat, HeartbeatReader
from selftrain.launch.nodes import Job, gather
from selftrain.launch.processes import PROGRESS_MESSAGE, REQUEST_MESSAGE, USAGE_MESSAGE, run
from selftrain.models.memory import check_gpu, check_memory, least_bytes
from selftrain.stage import Context, Outcome
from selftrain.store.files import replace_file
from selftrain.store.store import PROGRESS

OnRequest = Callable[[Any], Any]
"""Function in the parent: a child's request -> the reply, both JSON values."""


def launch(
    module: str,
    context: Context,
    distributed: bool = False,
    extra: dict[str, Any] | None = None,
    on_request: OnRequest | None = None,
    cancel_reason: Callable[[], str | None] = lambda: None,
) -> Outcome:
    """Run `python -m module resolved.json` for `context` and return the child's outcome.

    distributed    start `context.runtime.processes` ranks on each of `context.runtime.nodes` machines; a launcher starts them
                   where there are several ranks or DeepSpeed is configured
    extra          further JSON values for the child, stored in `Child.extra`
    on_request     replies to a request of the child (see `parent_request`)
    cancel_reason  called every second; if it returns a text, the child is ended and ChildFailed gives the text as the reason;
                   not used under a launcher

    Raises ChildFailed with the child's last lines of output, or the UsageError that the child reported. Before it starts a
    process, it raises UsageError where DeepSpeed is missing or the ranks do not fit into memory.
    """
    runtime = context.runtime
    needs = None
    if distributed:
        commands.need_deepspeed(runtime)
        needs = least_bytes(context.config, context.inputs, runtime)
        check_memory(needs, runtime)
    private = context.folder / PROGRESS
    private.mkdir(parents=True, exist_ok=True)
    resolved = private / "resolved.json"
    outcome = private / "outcome.json"
    outcome.unlink(missing_ok=True)
    content = {
        "config": canonical_json(context.config, "config"),
        "inputs": {name: str(path) for name, path in context.inputs.items()},
        "folder": str(context.folder),
        "runtime": canonical_json(runtime, "runtime"),
        "extra": extra or {},
        "needs": needs,
    }
    replace_file(resolved, json.dumps(content, indent=1).encode())
    last = _start(module, context, resolved, needs, on_request, cancel_reason)
    if not outcome.is_file():
        raise ChildFailed(f"{module} ended without a result; its last lines:\n{last}")
    return Outcome(**json.loads(outcome.read_bytes()))


def _start(
    module: str,
    context: Context,
    resolved: Path,
    needs: int | None,
    on_request: OnRequest | None,
    cancel_reason: Callable[[], str | None],
) -> str:
    """Run the child, or a launcher that starts the child's ranks; returns the last lines of the output."""
    runtime, private = context.runtime, resolved.parent
    variables = commands.environment(runtime)
    everywhere, reply = os.environ | variables, partial(_reply, on_request)

    def start(
        command: list[str],
        environment: dict[str, str] = everywhere,
        cancel_reason: Callable[[], str | None] = lambda: None,
        fork: bool = False,
    ) -> str:
        hours = runtime.stage_hours
        return run(
            command, module, environment, context.log, context.progress, reply, hours, cancel_reason, fork
        )

    many = runtime.processes * runtime.nodes > 1 or runtime.deepspeed or runtime.launcher == "deepspeed"
    if needs is None or not many:
        fork = runtime.device == "cpu" and forkserver.available()
        command = [sys.executable, "-m", commands.CHILD, module, str(resolved)]
        return start(command, cancel_reason=cancel_reason, fork=fork)
    if runtime.launcher == "deepspeed":
        command = commands.deepspeed(module, resolved, runtime)
        if runtime.nodes == 1:
            return start(command)
        with Heartbeat(private / "alive.json", Beat()) as alive:
            exported = variables | {commands.ALIVE: str(alive.path.resolve())}
            named = commands.deepspeed_env_file(private / "deepspeed_env", exported)
            return start(command, everywhere | named)
    if runtime.nodes == 1:
        return start(commands.torchrun(module, resolved, runtime))
    if context.shared is None:
        raise UsageError("runtime.nodes > 1 needs a store in a folder that all machines mount")
    job = Job(attempt=uuid.uuid4().hex[:12], module=module, resolved=resolved, runtime=runtime, needs=needs)
    with gather(context.shared / "jobs", job, context.log) as others:
        try:
            command = commands.torchrun(module, resolved, runtime, 0, job.attempt)
            last = start(command, cancel_reason=others.failure)
        except ChildFailed as error:
            raise ChildFailed(f"{error}{others.last_words()}") from None
        others.wait_for_end()
        return last


def _reply(on_request: OnRequest | None, request: Path) -> None:
    """Read a request's file, and write the reply into the file that `parent_request` waits for."""
    if on_request is None:
        raise RunError(
            f"a child process sent the request {request}, but its stage passed no `on_request` to `launch`: a bug"
        )
    content = json.dumps(on_request(json.loads(request.read_bytes())))
    replace_file(request.with_suffix(".reply"), content.encode())


# In the child process


class Child(BaseModel):
    """The content of `resolved.json`, which `launch` writes.

    config   the stage's config slice
    inputs   folders of the input artifacts, by name
    folder   folder for the stage's result
    runtime  the config's section `runtime`
    extra    further values from the caller of `launch`
    needs    bytes that each rank needs at least; None where the child is not distributed
    """

    config: dict[str, Any]
    inputs: dict[str, Path]
    folder: Path
    runtime: RuntimeConfig
    extra: dict[str, Any]
    needs: int | None = None

    @property
    def private(self) -> Path:
        """Folder for checkpoints, shards and other files that do not become part of the artifact."""
        return self.folder / PROGRESS


def report_progress(done: float, total: float, unit: str = "", **figures: float | str) -> None:
    """Report progress to the parent process; on ranks other than 0 this does nothing."""
    if ranks.rank() == 0:
        _print_line(
            PROGRESS_MESSAGE + json.dumps({"done": done, "total": total, "unit": unit, "figures": figures})
        )


def parent_request(child: Child, request: Any) -> Any:
    """Send `request` to the parent process and return its reply, both JSON values.

    The parent does for the child what the child may not do itself, such as starting a sandbox. Request and reply are files, so
    only ranks on the parent's machine may call this; rank 0 always runs there.
    """
    path = child.private / f"request-{uuid.uuid4().hex}.json"
    replied = path.with_suffix(".reply")
    replace_file(path, json.dumps(request).encode())
    _print_line(REQUEST_MESSAGE + json.dumps(str(path)))
    while not replied.is_file():  # if the parent dies, the thread of `_watch_lifeline` ends this process
        time.sleep(0.01)
    reply = json.loads(replied.read_bytes())
    path.unlink()
    replied.unlink()
    return reply


def _print_line(line: str) -> None:
    """Print `line` in a single write, so that the output of other ranks cannot split it.

    A line break is printed before `line`, since an unfinished progress bar leaves its own line open.
    """
    sys.stdout.write(f"\n{line}\n")
    sys.stdout.flush()


def child_main(work: Any, apart: bool = False) -> None:
    """Main function of a child module: read `resolved.json`, call `work(Child) -> Outcome`, write `outcome.json`.

    apart  use `runtime.processes` ranks that do not communicate; this process is rank 0 and starts the other ranks itself
    """
    gc.freeze()  # imported objects are never garbage, so the collector need not visit them
    gc.enable()  # selftrain.launch.child turned it off during imports
    child = Child.model_validate_json(Path(sys.argv[1]).read_bytes())
    others = _start_other_ranks(child.runtime.processes) if apart and "RANK" not in os.environ else []
    _watch_lifeline()
    try:
        if child.needs is not None and child.runtime.device == "cuda":
            check_gpu(child.needs, child.runtime.processes, ranks.local_rank())
        outcome: Outcome = work(child)
        if any(wait() != 0 for wait in others):
            raise RunError("another rank failed; its own output in this log says why")
        if ranks.rank() == 0:
            metrics = outcome.metrics | _gpu_memory()
            content = {"records_digest": outcome.records_digest, "metrics": metrics}
            replace_file(child.private / "outcome.json", json.dumps(content).encode())
    except UsageError as error:
        _print_line(USAGE_MESSAGE + json.dumps(str(error)))
        _exit(error.exit_code)
    except (SelftrainError, OSError) as error:
        # For errors such as a full disk, one line is clearer than a traceback.
        _print_line(f"{type(error).__name__}: {error}")
        _exit(1)
    except BaseException:
        traceback.print_exc()
        _exit(1)
    _exit(0)


def _gpu_memory() -> dict[str, int]:
    """The largest memory that this process has had in use on a GPU, as a metric of the stage; none if it used no GPU."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return {}
    return {"gpu_memory_bytes": int(torch.cuda.max_memory_allocated())}


KEPT: list[Any] = []
"""Objects that are not freed before this process exits: see `keep_until_exit`."""


def keep_until_exit(*objects: Any) -> None:
    """Keep references to `objects` until this process exits.

    This avoids a deadlock with models trained by several ranks. When such a model is freed, PyTorch's DDP destroys its process
    group: it joins gloo's threads while it holds the interpreter's lock (GIL), and one of these threads may wait for this lock.
    """
    KEPT.extend(objects)


def _exit(code: int) -> NoReturn:
    """Exit without freeing objects: see `keep_until_exit`."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _start_other_ranks(world: int) -> list[Callable[[], int]]:
    """Start ranks 1 to world - 1; the functions returned wait for their exit codes. Their stdin is a pipe from this process, so they
    exit when this process dies.

    A process of the fork server forks itself, before it starts threads; in the other ranks this returns nothing to wait for.
    """
    os.environ |= {"RANK": "0", "WORLD_SIZE": str(world)}
    others: list[Callable[[], int]] = []
    for rank in range(1, world):
        if not forkserver.FORKED:
            command, environment = [sys.executable, *sys.orig_argv[1:]], os.environ | {"RANK": str(rank)}
            others.append(subprocess.Popen(command, stdin=subprocess.PIPE, env=environment).wait)
            continue
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            os.dup2(reading, 0)
            os.close(writing)
            os.environ["RANK"] = str(rank)
            return []
        os.close(reading)
        others.append(partial(forkserver.exit_code, pid))
    return others


def _watch_lifeline() -> None:
    """Start a thread that ends this process when the parent has died.

    The parent has died when stdin closes. Where stdin does not come from the parent (`commands.ALIVE` is set), it has died when
    its heartbeat file is deleted or stale.
    """
    file = os.environ.get(commands.ALIVE)

    def wait() -> None:
        if file is None:
            while os.read(0, 4096):
                pass
        else:
            parent = HeartbeatReader(Path(file), Beat)
            while parent.read() is not None and not parent.stale:
                time.sleep(1)
        os._exit(1)

    if file or not sys.stdin.isatty():
        threading.Thread(target=wait, daemon=True).start()
