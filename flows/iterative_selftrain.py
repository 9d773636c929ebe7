"""Prefect flow `iterative-selftrain`: runs the whole method from a config, or one more round after the champion.

prefect deployment run iterative-selftrain/prod          selftrain run demo
"""

from typing import Any

from prefect import flow
from prefect.states import Completed, State

from flows.champion import Decided, train_challenger
from flows.deployed import attempt
from flows.method import method
from flows.session import carry_out, open_run
from selftrain.champion.drift import drift_markdown
from selftrain.champion.registry import Registry
from tasks.display import show_markdown
from tasks.events import emit
from tasks.notify import FLOW, notify
from tasks.prefect import PrefectRun


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
        out: Folder of the run, with its report; one of its own in runs/ if not given, to which runs/NAME then leads
        champion: Continue from the champion: train one more round, and promote its reranker if it is better
    """

    def work() -> Any:
        if not champion:
            run, folder = open_run(PrefectRun, config, overrides, rounds, out)
            return carry_out(run, folder, method)
        run, content, decided = train_challenger(lambda: open_run(PrefectRun, config, overrides, rounds, out))
        announce(run, decided)
        return final_state(content, decided)

    return attempt(iterative_selftrain, work)


def announce(run: PrefectRun, decided: Decided) -> None:
    """Show the decision and the history of decisions in the UI, and notify of a promotion."""
    records = Registry(run.store, run.config.name).records()
    champion = records[-1].champion
    who = f"{champion.ranker} (`{champion.reranker}`)" if champion else "none yet"
    text = f"**{decided.text}**\n\nChampion: {who}\n\n{drift_markdown(records)}"
    show_markdown(run, "champion", text)
    record = decided.record
    if record is not None:
        details = {"text": decided.text, "challenger": record.challenger and record.challenger.reranker}
        emit(record.decision.replace(" ", "-"), run.config.name, number=record.number, **details)
    if record is not None and record.decision == "promoted" and champion is not None:
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
