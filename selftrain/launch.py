"""Runs a stage's heavy part in a child process: one CPU process, ranks under torchrun, or nodes of them.

The parent writes `resolved.json`; the child reads it, prints progress lines, writes its files and `outcome.json`. The
child's standard input is a lifeline: when the parent dies, however it dies, it closes, and the child kills itself.
"""

import collections
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from selftrain.errors import ChildFailed, RunError, SelftrainError, UsageError
from selftrain.stage import Build, Outcome, plain
from selftrain.store import PROGRESS, replace_file

MARK = "@progress "
LAST_LINES = 40
GRACE_SECONDS = 5


def launch(
    module: str, build: Build, distributed: bool = False, extra: dict[str, Any] | None = None
) -> Outcome:
    """Run `python -m module resolved.json` for `build` and return its outcome.

    distributed  start `build.runtime.processes` ranks under torchrun (also for one rank where DeepSpeed is asked for)
    extra        further JSON values for the child, under "extra"

    Raises ChildFailed with the child's last lines, or the UsageError that the child ended with.
    """
    private = build.folder / PROGRESS
    private.mkdir(parents=True, exist_ok=True)
    resolved = private / "resolved.json"
    outcome = private / "outcome.json"
    outcome.unlink(missing_ok=True)
    content = {
        "config": plain(build.config, "config"),
        "inputs": {name: str(path) for name, path in build.inputs.items()},
        "folder": str(build.folder),
        "runtime": plain(build.runtime, "runtime"),
        "extra": extra or {},
    }
    replace_file(resolved, json.dumps(content, indent=1).encode())
    last = _run(_command(module, build.runtime, distributed, resolved), build)
    if not outcome.is_file():
        raise ChildFailed(f"{module} ended without a result; its last lines:\n{last}")
    return Outcome(**json.loads(outcome.read_bytes()))


def _command(module: str, runtime: Any, distributed: bool, resolved: Path) -> list[str]:
    if distributed and (runtime.processes > 1 or runtime.nodes > 1 or runtime.deepspeed):
        if runtime.deepspeed and importlib.util.find_spec("deepspeed") is None:
            raise UsageError(
                "runtime.deepspeed is set but deepspeed is not installed; `pip install deepspeed` or set it to null"
            )
        rendezvous = (
            ["--standalone"]
            if runtime.nodes == 1
            else [f"--nnodes={runtime.nodes}", "--rdzv-backend=c10d", f"--rdzv-endpoint={runtime.rendezvous}"]
        )
        return [
            sys.executable,
            "-m",
            "torch.distributed.run",
            *rendezvous,
            f"--nproc-per-node={runtime.processes}",
            "-m",
            module,
            str(resolved),
        ]
    return [sys.executable, "-m", module, str(resolved)]


def _environment(runtime: Any) -> dict[str, str]:
    own = {
        "OMP_NUM_THREADS": str(runtime.threads),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONSAFEPATH": "1",  # no module of the folder that the user happens to be in
        "PYTHONPATH": os.pathsep.join(
            p for p in [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")] if p
        ),
    }
    if runtime.device == "cpu":
        own |= {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
        if not runtime.deepspeed:  # accelerate would take DDP in its stead
            own["ACCELERATE_USE_CPU"] = "true"
    return os.environ | own


def _run(command: list[str], build: Build) -> str:
    """Run `command`, hand on its progress, log the rest; its last lines. Its group does not outlive this call."""
    import logging

    log = logging.getLogger("selftrain.child")
    lines: collections.deque[str] = collections.deque(maxlen=LAST_LINES)
    usage, told = "", False
    child = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=_environment(build.runtime),
        start_new_session=True,
        text=True,
        errors="replace",
    )
    assert child.stdout is not None
    try:
        for line in child.stdout:
            line = line.rstrip()
            if line.startswith(MARK):
                build.progress(**json.loads(line.removeprefix(MARK)))
            elif line.startswith(USAGE_MARK):
                usage = json.loads(line.removeprefix(USAGE_MARK))
            elif line:
                torchrun = TORCHRUN.search(line)
                told = told or bool(torchrun and torchrun[1])
                if (
                    not told and not torchrun
                ):  # what torchrun says of itself would push the rank's own words out
                    lines.append(line)
                log.debug(line)
        code = child.wait()
    finally:
        _end(child)
    if code != 0:
        if usage:
            raise UsageError(usage)
        last = "\n".join(lines)
        raise ChildFailed(f"{' '.join(command[1:4])} ended with code {code}; its last lines:\n{last}")
    return "\n".join(lines)


def _end(child: subprocess.Popen[str]) -> None:
    """Close the lifeline and end the child's process group: first gently, then not."""
    if child.stdin is not None:
        child.stdin.close()
    for kind in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, kind)
        except ProcessLookupError:
            break
        try:
            child.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            continue


# The child's side

TORCHRUN = re.compile(r"^[IWE]\d{4} .*torch/distributed/elastic/.*?\] (failed \(exitcode: )?")
USAGE_MARK = "@usage-error "


class Child(BaseModel):
    """What a child process is told: see `launch`."""

    config: dict[str, Any]
    inputs: dict[str, Path]
    folder: Path
    runtime: dict[str, Any]
    extra: dict[str, Any]

    @property
    def private(self) -> Path:
        """Folder for checkpoints and shards; it is not part of the artifact."""
        return self.folder / PROGRESS


def report_progress(done: float, total: float, unit: str = "", **figures: float | str) -> None:
    """Tell the parent how far the work is; only rank 0 does."""
    if int(os.environ.get("RANK", "0")) == 0:
        _say(MARK + json.dumps({"done": done, "total": total, "unit": unit, "figures": figures}))


def _say(line: str) -> None:
    """Print `line` in one write, so that what other ranks print at the same time is not in the middle of it."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def child_main(work: Any, apart: bool = False) -> None:
    """Entry of a child module: `work(Child) -> Outcome` between reading `resolved.json` and writing `outcome.json`.

    apart  share the work among `runtime.processes` ranks that never talk to each other: this process is rank 0 and starts
           the others, without torchrun
    """
    _hold_lifeline()
    child = Child.model_validate_json(Path(sys.argv[1]).read_bytes())
    others = _start_others(child.runtime["processes"]) if apart and "RANK" not in os.environ else []
    try:
        outcome: Outcome = work(child)
        if any(other.wait() != 0 for other in others):
            raise RunError("another rank failed; its last lines are above")
    except UsageError as error:
        _say(USAGE_MARK + json.dumps(str(error)))
        sys.exit(error.exit_code)
    except (
        SelftrainError,
        OSError,
    ) as error:  # a full disk, for instance: a line says it, a traceback would hide it
        _say(f"{type(error).__name__}: {error}")
        sys.exit(1)
    if int(os.environ.get("RANK", "0")) == 0:
        content = {"records_digest": outcome.records_digest, "metrics": outcome.metrics}
        replace_file(child.private / "outcome.json", json.dumps(content).encode())


def _start_others(world: int) -> list[subprocess.Popen[bytes]]:
    """Ranks 1 to world - 1; each holds on to this process by its standard input."""
    os.environ |= {"RANK": "0", "WORLD_SIZE": str(world)}
    command = [sys.executable, *sys.orig_argv[1:]]
    return [
        subprocess.Popen(command, stdin=subprocess.PIPE, env=os.environ | {"RANK": str(rank)})
        for rank in range(1, world)
    ]


def _hold_lifeline() -> None:
    """Kill this process when standard input closes: the parent is gone."""

    def wait() -> None:
        while os.read(0, 4096):
            pass
        os._exit(1)

    if not sys.stdin.isatty():
        threading.Thread(target=wait, daemon=True).start()
