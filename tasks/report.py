"""Task `report`: report.json and report.html."""

from selftrain.stage import ArtifactRef
from selftrain.stages.report import REPORT, ReportSlice
from tasks.evaluate import Pools, pool_inputs
from tasks.run import Run


def report(
    run: Run, problems: ArtifactRef, pools: Pools, pairs: ArtifactRef, evaluation: ArtifactRef
) -> ArtifactRef:
    """The report on an evaluation."""
    shown = run.config.model_dump(mode="json", exclude={"runtime", "store"})
    piece = ReportSlice(config=shown, pools=tuple(pools), rounds=run.config.rounds)
    inputs = pool_inputs(problems, pools) | {"pairs": pairs, "evaluation": evaluation}
    return run.do(REPORT, "report", piece, inputs)
