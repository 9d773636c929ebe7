"""The method: SFT, then rounds of reward model, PPO, sampling, execution and mining, then the evaluation.

prefect deployment run iterative-selftrain/prod          selftrain run demo
"""

from itertools import pairwise
from typing import Any
from uuid import UUID

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.runtime import flow_run
from prefect.states import Completed, State

from flows.champion import Decided, go_on
from flows.method import method
from flows.session import carry_out, open_run
from selftrain.champion.drift import drift_markdown
from selftrain.champion.registry import Registry
from selftrain.errors import RunError
from tasks.display import show_markdown
from tasks.notify import notify, notify_of_end, run_name
from tasks.prefect import PrefectRun

STARTS = 10
"""How often a run is started; it is started again when it crashes (infra/automation.py)."""
SILENT = "no sign of life"
"""How the message begins of the state that the automation starts a run again with."""


@flow(
    name="iterative-selftrain",
    flow_run_name=run_name,
    validate_parameters=False,
    on_failure=[notify_of_end],
    on_crashed=[notify_of_end],
    on_cancellation=[notify_of_end],
)
def iterative_selftrain(
    config: str = "demo",
    overrides: dict[str, Any] | None = None,
    rounds: int | None = None,
    out: str | None = None,
    champion: bool = False,
) -> Any:
    """Train rerankers by iterative self-training and report what they gained.

    Args:
        config: What to run: a YAML file, or the name of a shipped config (demo, prod, ...)
        overrides: Settings on top of it, by dotted name, e.g. {"sft.epochs": 2, "store": "s3://bucket/store"}
        rounds: Rounds of reward model and PPO; the config's own number if not given
        out: Folder of the run, with its report; runs/NAME if not given
        champion: Go on from the champion: train one round more, and promote what beats it
    """
    if flow_run.run_count > STARTS:
        raise RunError(
            f"the run crashed {STARTS} times and is not started again; the worker's log says how its process ended. What is "
            "finished is kept: start a new run to go on"
        )
    if flow_run.run_count > 1 and (end := ended(flow_run.id)):
        return end
    if not champion:
        run, folder = open_run(PrefectRun, config, overrides, rounds, out)
        return carry_out(run, folder, method)
    run, content, decided = go_on(lambda: open_run(PrefectRun, config, overrides, rounds, out))
    announce(run, decided)
    return told(content, decided)


def ended(id: str) -> State[Any] | None:
    """The end that a run had come to before the automation, which had missed it, started it again; None where it had not."""
    with get_client(sync_client=True) as client:
        states = sorted(client.read_flow_run_states(UUID(id)), key=lambda state: state.timestamp)
    before, then = [pair for pair in pairwise(states) if pair[1].is_scheduled()][-1]
    missed = (then.message or "").startswith(SILENT)
    if missed and (before.is_completed() or before.is_failed() or before.is_cancelled()):
        return State(type=before.type, name=before.name, message=before.message)
    return None


def announce(run: PrefectRun, decided: Decided) -> None:
    """Show what was decided, and how it has gone so far."""
    records = Registry(run.store, run.config.name).records()
    champion = records[-1].champion
    text = f"**{decided.text}**\n\nChampion: {champion.ranker} (`{champion.reranker}`)\n\n{drift_markdown(records)}"
    show_markdown(f"champion-{run.config.name}", text, f"the champion of {run.config.name}")
    if decided.record is not None and decided.record.decision == "promoted":
        notify("promoted", f"{run.config.name}: {decided.text}", {"champion": champion.model_dump()})


def told(content: dict[str, Any], decided: Decided) -> State[dict[str, Any]]:
    """The flow's final state, which says what was decided; its result is the report and, under `champion`, the decision."""
    record = decided.record
    result = {
        "text": decided.text,
        "nothing": decided.attempt.nothing,
        "record": record and record.model_dump(),
    }
    return Completed(message=decided.text, data=content | {"champion": result})
