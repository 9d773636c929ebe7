"""Several trainings in one process, or in one group of ranks: importing torch and trl costs more than they do.

`python -m tests.selftrain.training.children JOBS.json`, a list of {"stage", "child", "kills", "again"}. Each job's outcome is written
to `outcome.json` in its private folder. With `again`, the job's last checkpoint is removed afterwards and the job resumes from
the one before. A job with `kills` runs in forks of this process: the first is killed (-9) at the first kill, the next resumes in
the same folder and is killed at the second, and so on; the last one finishes.
"""

import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from accelerate import PartialState

from selftrain.launch.launch import Child
from selftrain.training import callbacks, common, reward, sft

TRAIN = {"sft": sft.train, "reward": reward.train}


def main(jobs: list[dict[str, Any]]) -> None:
    """Run `jobs`, one after the other."""
    for job in jobs:
        stage, work = job["stage"], Child.model_validate(job["child"])
        if "kills" not in job:
            finish(stage, work)
            if job.get("again"):
                lose_the_last_checkpoint(work)
                finish(stage, work)
            continue
        for kill in [*job["kills"], None]:
            status = apart(stage, work, kill)
            if status != (signal.SIGKILL if kill else 0):
                raise SystemExit(f"{work.folder}, to be killed at {kill}, ended with {status}")


def finish(stage: str, work: Child) -> None:
    """Train, and write the outcome."""
    work.private.mkdir(parents=True, exist_ok=True)
    steps: list[float] = []
    callbacks.report_progress = lambda done, *_, **__: steps.append(done)
    outcome = TRAIN[stage](work)
    if os.environ.get("RANK", "0") == "0":
        content = {
            "digest": outcome.records_digest,
            "metrics": outcome.metrics,
            "first_step": (steps or [0])[0],
        }
        (work.private / "outcome.json").write_text(json.dumps(content))


def lose_the_last_checkpoint(work: Child) -> None:
    """Remove the mark of the last checkpoint, as if the run had been killed before that checkpoint was complete."""
    state = PartialState()
    state.wait_for_everyone()
    if state.is_main_process:
        Path(common.last_checkpoint(work.private / "checkpoints") or "", common.WHOLE).unlink()
    state.wait_for_everyone()


def apart(stage: str, work: Child, kill: list[Any] | None) -> int:
    """Run a training in a fork of this process, killed at `kill`; returns its signal or exit code."""
    if pid := os.fork():
        status = os.waitpid(pid, 0)[1]
        return os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    try:
        if kill:
            killed_at(*kill)
        finish(stage, work)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def killed_at(when: str, step: int) -> None:
    """Have this process killed at step `step`.

    when  log: before anything is saved; saving: between a checkpoint's files and its mark; saved: right after the mark;
          export: before the export of the finished model, whatever the step
    """

    def kill(*_: Any) -> None:
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    if when == "export":
        common.export = kill
        return
    kind, name = (callbacks.Progress, "on_log") if when == "log" else (callbacks.Checkpoints, "on_save")
    original = getattr(kind, name)

    def wrapped(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        now = state.global_step == step and (when != "log" or "loss" in kwargs["logs"])
        if now and when == "saving":
            kill()
        original(self, args, state, control, **kwargs)
        if now:
            kill()

    setattr(kind, name, wrapped)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
    os._exit(0)  # as a stage's child ends: see `selftrain.launch.launch.keep_until_exit`
