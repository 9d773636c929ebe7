"""Tests of the warnings about learning rates that damage pretrained weights."""

import logging
from pathlib import Path
from typing import Any

import pytest

from selftrain.config import RunConfig
from selftrain.configfile import CONFIGS, load_config
from selftrain.plan.learning_rates import too_high
from selftrain.store.store import Store
from tasks import suitable
from tasks.run import Run


def config(base: str | None, **sections: Any) -> RunConfig:
    """A run from `base`; rates that are not given are low."""
    rates = {name: {"learning_rate": 1e-6} | sections.get(name, {}) for name in ("sft", "reward", "ppo")}
    return RunConfig.model_validate({"model": {"base": base}, **sections, **rates})


@pytest.mark.parametrize(
    ("base", "sections", "named"),
    [
        (None, {"sft": {"learning_rate": 3e-3}}, []),
        ("small", {}, []),
        ("small", {"sft": {"learning_rate": 1e-4}}, []),
        ("small", {"sft": {"learning_rate": 3e-3}}, ["sft.learning_rate is 0.003"]),
        ("small", {"sft": {"learning_rate": 5e-4, "lora": {}}}, []),
        ("small", {"ppo": {"learning_rate": 2e-3, "lora": {}}}, ["ppo.learning_rate is 0.002"]),
        ("small", {"reward": {"learning_rate": 1e-6, "later_learning_rate": 5e-4}}, []),
        (
            "small",
            {"reward": {"learning_rate": 1e-3, "later_learning_rate": 5e-4, "later_epochs": 1}},
            ["reward.learning_rate is 0.001", "reward.later_learning_rate is 0.0005"],
        ),
        (None, {"reward": {"learning_rate": 1e-3, "base": "judge"}}, ["reward.learning_rate is 0.001"]),
        ("small", {"reward": {"learning_rate": 1e-5, "head_learning_rate": 1e-2}}, []),
        ("small", {"sft": {"learning_rate": 3e-3, "epochs": 0}}, []),
        ("small", {"ppo": {"learning_rate": 2e-3}, "rounds": 1, "evaluate": {"pools": ["sft"]}}, []),
    ],
    ids=str,
)
def test_a_rate_that_damages_pretrained_weights_is_named(
    base: str | None, sections: dict[str, Any], named: list[str]
):
    found = [line.partition(",")[0] for line in too_high(config(base, **sections))]
    assert found == named


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_no_shipped_config_has_such_a_rate(path: Path):
    assert not list(too_high(load_config(path.stem, {})))


def test_a_run_logs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setattr(suitable, "base_digest", lambda *_: "digest")
    monkeypatch.setattr(suitable, "launch", lambda *_: None)
    run = Run(config("small", sft={"learning_rate": 3e-3}), Store(str(tmp_path)), toolchain={"": ""})
    with caplog.at_level(logging.WARNING, "selftrain"):
        suitable.check_models(run)
    assert [line.partition(",")[0] for line in caplog.messages] == ["sft.learning_rate is 0.003"]
