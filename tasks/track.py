"""Sends metrics to an experiment tracker: TensorBoard, MLflow or Trackio, as `runtime.tracker` says.

The tracker is not installed with this project. Each stage that is built sends its scalar metrics and its curves, one value per
step. The trackers' own variables say where to (MLFLOW_TRACKING_URI, TRACKIO_DIR); TensorBoard's files are in the run's folder. If
a tracker fails, a warning is logged and the run continues.
"""

import importlib.util
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selftrain.errors import UsageError
from tasks.run import Run, Step

Point = tuple[str, float, int]
"""Name, value and step of a metric."""


def need_tracker(name: str | None) -> None:
    """Raise UsageError if the tracker `name` is not installed."""
    if name is not None and importlib.util.find_spec(name) is None:
        raise UsageError(
            f"runtime.tracker is {name}, which is not installed; `pip install {name}`, or set runtime.tracker to null"
        )


def track(run: Run, step: Step, manifest: dict[str, Any]) -> None:
    """Send the stage's metrics to the run's tracker, if it has one."""
    tracker = run.config.runtime.tracker
    if tracker is None:
        return
    tell = {"tensorboard": _tensorboard, "mlflow": _mlflow, "trackio": _trackio}[tracker]
    try:
        tell(run, step, list(points(manifest.get("metrics") or {})))
    except Exception as error:  # whatever a tracker raises: the stage itself has succeeded
        logging.getLogger("selftrain").warning(
            "%s did not take the metrics of %s: %s", tracker, step.label, error
        )


def points(metrics: dict[str, Any]) -> Iterator[Point]:
    """The points of a manifest's metrics: values of a curve at the curve's steps, scalar values at step 0."""
    for name, value in metrics.items():
        if isinstance(value, list):
            for row in value:
                if isinstance(row, dict) and "step" in row:
                    yield from (
                        (f"{name}/{key}", float(one), int(row["step"]))
                        for key, one in row.items()
                        if key != "step" and _number(one)
                    )
        elif isinstance(value, dict):
            yield from ((f"{name}/{key}", float(one), 0) for key, one in value.items() if _number(one))
        elif _number(value):
            yield name, float(value), 0


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _tensorboard(run: Run, step: Step, found: list[Point]) -> None:
    from tensorboard.summary import Writer

    writer = Writer(str((run.out or Path("runs", run.config.name)) / "tensorboard" / step.name))
    for name, value, at in found:
        writer.add_scalar(name, value, at)
    writer.close()


def _mlflow(run: Run, step: Step, found: list[Point]) -> None:
    import mlflow

    mlflow.set_experiment(run.config.name)
    with mlflow.start_run(run_name=step.label):
        mlflow.set_tags({"stage": step.stage.name, "key": step.ref.key})
        for name, value, at in found:
            mlflow.log_metric(name, value, step=at)


def _trackio(run: Run, step: Step, found: list[Point]) -> None:
    import trackio

    trackio.init(project=run.config.name, name=f"{step.label} {step.ref.key[:8]}")
    steps: dict[int, dict[str, float]] = {}
    for name, value, at in found:
        steps.setdefault(at, {})[name] = value
    for at, values in sorted(steps.items()):
        trackio.log(values, step=at)
    trackio.finish()
