"""Tests of the events that a built stage emits; `tests/flows/test_starts_again.py` sends one to a real server."""

from typing import Any

import pytest

from selftrain.config import RunConfig
from selftrain.stage import ArtifactRef, Outcome, Stage, Step
from selftrain.store.store import Store
from tasks import events
from tasks.run import Run

REF = ArtifactRef("stage", "key")


@pytest.mark.parametrize(
    ("settings", "stage", "name", "metrics", "emitted"),
    [
        ({}, "train_reward", "rm-1", {}, []),
        ({}, "ppo", "ppo-1", {}, [("round-done", {"round": 1, "rounds": 2})]),
        ({"mine": {"pools": "sft"}, "evaluate": {"pools": ["sft"]}}, "train_reward", "rm-2", {}, [("round-done", {"round": 2})]),
        ({}, "execute", "execute-sft-rl", {"verdicts": {"passed": 3}}, []),
        ({}, "execute", "execute-sft-rl", {}, []),
        (
            {},
            "execute",
            "execute-sft-rl",
            {"verdicts": {"passed": 3, "sandbox_error": 1}},
            [("sandbox-errors", {"stage": "execute-sft-rl", "errors": 1, "programs": 4, "rate": 0.25})],
        ),
    ],
)  # fmt: skip
def test_a_round_is_done_with_its_last_stage_and_errors_of_the_sandbox_have_a_rate(
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    stage: str,
    name: str,
    metrics: dict[str, Any],
    emitted: list[tuple[str, dict[str, Any]]],
):
    told: list[tuple[str, str, dict[str, Any]]] = []
    monkeypatch.setattr(
        events, "emit", lambda event, config, **details: told.append((event, config, details))
    )
    run = Run(RunConfig(name="x", rounds=2, **settings), Store("/nowhere"))
    step = Step(Stage(stage, 1, lambda _: Outcome("")), name, name, None, {}, REF)
    events.emit_built(run, step, {"metrics": metrics})
    assert [event for event, config, _ in told if config == "x"] == [event for event, _ in emitted]
    for (_, _, details), (_, expected) in zip(told, emitted, strict=True):
        assert details | expected == details
