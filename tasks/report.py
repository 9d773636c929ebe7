"""Task `report`: writes report.json and report.html."""

from selftrain.stage import ArtifactRef
from selftrain.stages.report import REPORT, ReportSlice
from tasks.evaluate import Pools, pool_inputs
from tasks.run import Run


def report(
    run: Run, problems: ArtifactRef, pools: Pools, pairs: ArtifactRef | None, evaluation: ArtifactRef
) -> ArtifactRef:
    """Write the report on an evaluation. `pairs`: all mined pairs; None if the run mined none."""
    shown = run.config.model_dump(mode="json", exclude={"runtime", "promotion", "store"})
    config_slice = ReportSlice(config=shown, pools=tuple(pools), rounds=run.config.rounds)
    inputs = pool_inputs(problems, pools) | {"evaluation": evaluation}
    if pairs is not None:
        inputs["pairs"] = pairs
    return run.do(REPORT, "report", config_slice, inputs)
