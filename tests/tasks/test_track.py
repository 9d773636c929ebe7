"""Tests of the metrics that a tracker receives, and that a failing tracker does not harm a run."""

import logging
from pathlib import Path

import pytest

from selftrain.config import RunConfig, RuntimeConfig
from selftrain.errors import UsageError
from selftrain.stage import ArtifactRef, Outcome, Stage
from selftrain.store.store import Store
from tasks import track
from tasks.run import Run, Step

METRICS = {
    "pairs": 3,
    "chosen": "rm-2",
    "kept": True,
    "seconds": {"rollout": 1.5, "note": "x"},
    "curve": [{"step": 1, "loss": 0.5, "text": "x"}, {"step": 2, "loss": 0.25}],
    "names": ["a", "b"],
}


def made(tmp_path: Path, tracker: str | None) -> tuple[Run, Step]:
    """A run that has begun, and one of its steps."""
    config = RunConfig(name="told", runtime=RuntimeConfig(tracker=tracker))
    run = Run(config, Store(str(tmp_path / "store")), out=tmp_path)
    stage = Stage("sft", 1, lambda build: Outcome(""))
    return run, Step(stage, "rm-2", "train_reward · round 2", {}, {}, ArtifactRef("sft", "0" * 32))


def test_figures_and_curves_are_points():
    assert list(track.points(METRICS)) == [
        ("pairs", 3.0, 0),
        ("seconds/rollout", 1.5, 0),
        ("curve/loss", 0.5, 1),
        ("curve/loss", 0.25, 2),
    ]


def test_tensorboard_reads_what_it_was_told(tmp_path: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run, step = made(tmp_path, "tensorboard")
    track.track(run, step, {"metrics": METRICS})
    events = EventAccumulator(str(tmp_path / "tensorboard" / "rm-2"))
    events.Reload()
    tags = events.Tags()["tensors"]
    assert sorted(tags) == ["curve/loss", "pairs", "seconds/rollout"]
    curve = [(event.step, event.tensor_proto.float_val[0]) for event in events.Tensors("curve/loss")]
    assert curve == [(1, 0.5), (2, 0.25)]


def test_a_tracker_that_fails_costs_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def fail(*_: object) -> None:
        raise RuntimeError("no disk")

    monkeypatch.setattr(track, "_tensorboard", fail)
    run, step = made(tmp_path, "tensorboard")
    with caplog.at_level(logging.WARNING, "selftrain"):
        track.track(run, step, {"metrics": METRICS})
    assert "tensorboard did not take the metrics of train_reward · round 2: no disk" in caplog.text


def test_a_tracker_that_is_not_installed_is_told_before_anything_runs():
    with pytest.raises(
        UsageError, match=r"runtime.tracker is mlflow, which is not installed; `pip install mlflow`"
    ):
        track.need_tracker("mlflow")
    track.need_tracker(None)
