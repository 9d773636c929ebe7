"""The method: SFT, then rounds of reward model, PPO, sampling, execution and mining, then the evaluation.

prefect deployment run iterative-selftrain/prod          selftrain run demo
"""

from typing import Any

from prefect import flow
from prefect.runtime import flow_run

from flows.method import method
from flows.session import begin, finish, open_run
from selftrain.errors import RunError
from tasks.prefect import PrefectRun

STARTS = 10
"""How often a run is started; it is started again when it crashes (infra/automation.py)."""


@flow(name="iterative-selftrain", flow_run_name="{config}", validate_parameters=False)
def iterative_selftrain(
    config: str = "demo",
    overrides: dict[str, Any] | None = None,
    rounds: int | None = None,
    out: str | None = None,
) -> dict[str, Any]:
    """Train rerankers by iterative self-training and report what they gained.

    Args:
        config: a YAML file, or the name of a shipped config (demo, prod, ...)
        overrides: settings on top of it, by dotted name, e.g. {"sft.epochs": 2}
        rounds: rounds of reward model and PPO; the config's own number if not given
        out: the run's folder; runs/NAME if not given
    """
    if flow_run.run_count > STARTS:
        raise RunError(
            f"the run crashed {STARTS} times and is not started again; the worker's log says how its process ended. What is "
            "finished is kept: start a new run to go on"
        )
    run, folder = open_run(PrefectRun, config, overrides, rounds, out)
    begin(run, folder)
    return finish(run, method(run), folder)
