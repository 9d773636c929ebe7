"""Emits events of this project to Prefect's server, on which automations can act: decisions, finished rounds, sandbox errors.

An event's resource is the config; Prefect adds the run, its deployment, its work pool and its tags as related resources. Events are
queued and sent by a thread: nothing waits for the server, and what it does not get is lost.
"""

from typing import Any

from tasks.run import Run, Step


def emit(event: str, config: str, **details: Any) -> None:
    """Emit `selftrain.EVENT` about the config of that name; outside a flow run nothing is emitted. `details`: JSON values."""
    from prefect.events import emit_event
    from prefect.runtime import flow_run

    if flow_run.id is None:
        return
    resource = {"prefect.resource.id": f"selftrain.config.{config}", "prefect.resource.name": config}
    emit_event(f"selftrain.{event}", resource, payload=details)


def emit_built(run: Run, step: Step, manifest: dict[str, Any]) -> None:
    """Emit what a stage that was built tells: its round is done, or the sandbox failed on some of the programs."""
    stage, metrics = step.stage.name, manifest.get("metrics") or {}
    if stage in ("train_reward", "ppo"):
        round = int(step.name.rpartition("-")[2])
        if stage == "ppo" or round not in run.config.policy_rounds:
            emit("round-done", run.config.name, round=round, rounds=run.config.rounds, key=str(step.ref))
    counts = metrics.get("verdicts") if stage == "execute" else None
    if counts and (errors := counts.get("sandbox_error", 0)):
        programs = sum(counts.values())
        emit(
            "sandbox-errors",
            run.config.name,
            stage=step.name,
            errors=errors,
            programs=programs,
            rate=errors / programs,
        )
