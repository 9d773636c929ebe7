"""Prefect flow `iterative-selftrain`: runs the whole method from a config, or one more round after the champion.

prefect deployment run iterative-selftrain/prod          selftrain run demo
"""

from itertools import pairwise
from typing import Any
from uuid import UUID

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.runtime import flow_run
from prefect.states import Completed, State

from flows.champion import Decided, train_challenger
from flows.method import method
from flows.session import carry_out, open_run
from selftrain.champion.drift import drift_markdown
from selftrain.champion.registry import Registry
from selftrain.errors import RunError
from tasks.display import show_markdown
from tasks.notify import FLOW, notify
from tasks.prefect import PrefectRun

STARTS = 10
"""Largest number of starts of one flow run; the automation of infra/automation.py restarts a run that crashed."""
SILENT = "no sign of life"
"""Beginning of the state message that marks a restart by the automation."""


@flow(name="iterative-selftrain", **FLOW)
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
        overrides: Settings that replace those of the config, by dotted name, e.g. {"sft.epochs": 2, "store": "s3://bucket/store"}
        rounds: Rounds of reward model and PPO; the config's own number if not given
        out: Folder of the run, with its report; runs/NAME if not given
        champion: Continue from the champion: train one more round, and promote its reranker if it is better
    """
    if flow_run.run_count > STARTS:
        raise RunError(
            f"the run crashed {STARTS} times and is not started again; the worker's log says how its process ended. Finished "
            "artifacts are kept: start a new run to resume"
        )
    if flow_run.run_count > 1 and (end := earlier_end(flow_run.id)):
        return end
    if not champion:
        run, folder = open_run(PrefectRun, config, overrides, rounds, out)
        return carry_out(run, folder, method)
    run, content, decided = train_challenger(lambda: open_run(PrefectRun, config, overrides, rounds, out))
    announce(run, decided)
    return final_state(content, decided)


def earlier_end(id: str) -> State[Any] | None:
    """The final state of a run that had ended before the automation restarted it; None if the run had not ended.

    The automation can miss the end of a run, and then restarts it by mistake.
    """
    with get_client(sync_client=True) as client:
        states = sorted(client.read_flow_run_states(UUID(id)), key=lambda state: state.timestamp)
    before, then = [pair for pair in pairwise(states) if pair[1].is_scheduled()][-1]
    missed = (then.message or "").startswith(SILENT)
    if missed and (before.is_completed() or before.is_failed() or before.is_cancelled()):
        return State(type=before.type, name=before.name, message=before.message)
    return None


def announce(run: PrefectRun, decided: Decided) -> None:
    """Show the decision and the history of decisions in the UI, and notify of a promotion."""
    records = Registry(run.store, run.config.name).records()
    champion = records[-1].champion
    who = f"{champion.ranker} (`{champion.reranker}`)" if champion else "none yet"
    text = f"**{decided.text}**\n\nChampion: {who}\n\n{drift_markdown(records)}"
    show_markdown(f"champion-{run.config.name}", text, f"the champion of {run.config.name}")
    if decided.record is not None and decided.record.decision == "promoted" and champion is not None:
        notify("promoted", f"{run.config.name}: {decided.text}", {"champion": champion.model_dump()})


def final_state(content: dict[str, Any], decided: Decided) -> State[dict[str, Any]]:
    """The flow's final state, with the decision as its message; its data are report.json and, under `champion`, the decision."""
    record = decided.record
    result = {
        "text": decided.text,
        "nothing": decided.attempt.nothing,
        "record": record and record.model_dump(),
    }
    return Completed(message=decided.text, data=content | {"champion": result})
