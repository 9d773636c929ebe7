"""The method: SFT, then rounds of reward model, PPO, sampling, execution and mining, then the evaluation.

prefect deployment run iterative-selftrain/prod          selftrain run demo
"""

from pathlib import PurePath
from typing import Any

from prefect import flow
from prefect.runtime import flow_run

from flows.method import method
from flows.session import begin, finish, open_run
from tasks.notify import notify_of_end
from tasks.prefect import PrefectRun


def run_name() -> str:
    """What the UI lists a run as, e.g. `prod · 2026-11-25 02:00` (UTC)."""
    config = PurePath(str(flow_run.parameters.get("config", "demo"))).stem
    return f"{config} · {flow_run.scheduled_start_time:%Y-%m-%d %H:%M}"


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
) -> dict[str, Any]:
    """Train rerankers by iterative self-training and report what they gained.

    Args:
        config: What to run: a YAML file, or the name of a shipped config (demo, prod, ...)
        overrides: Settings on top of it, by dotted name, e.g. {"sft.epochs": 2, "store": "s3://bucket/store"}
        rounds: Rounds of reward model and PPO; the config's own number if not given
        out: Folder of the run, with its report; runs/NAME if not given
    """
    run, folder = open_run(PrefectRun, config, overrides, rounds, out)
    begin(run, folder)
    return finish(run, method(run), folder)
