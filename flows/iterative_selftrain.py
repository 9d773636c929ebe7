"""The method: SFT, then rounds of reward model, PPO, sampling, execution and mining, then the evaluation.

prefect deployment run iterative-selftrain/prod          selftrain run demo
"""

from typing import Any

from prefect import flow

from flows.method import method
from flows.session import begin, finish, open_run
from tasks.prefect import PrefectRun


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
    run, folder = open_run(PrefectRun, config, overrides, rounds, out)
    begin(run, folder)
    return finish(run, method(run), folder)
