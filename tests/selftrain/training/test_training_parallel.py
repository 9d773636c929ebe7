"""Tests that two ranks, with DDP and with ZeRO, have the losses of one process, also after resuming from a checkpoint."""

from pathlib import Path

import pytest
from safetensors.torch import load_file

from selftrain.config import RuntimeConfig
from tests.command import ROOT
from tests.selftrain.training.conftest import the_jobs
from tests.selftrain.training.made import carry_out

KINDS = ["ddp", "zero2", "zero3", "zero3-offload"]


@pytest.mark.parametrize("kind", KINDS)
def test_two_ranks_have_the_losses_of_one_process(kind: str, alone: dict, generator: Path, tmp_path: Path):
    file = None if kind == "ddp" else str(ROOT / "configs" / "deepspeed" / f"{kind}.json")
    runtime = RuntimeConfig(processes=2, deepspeed=file)
    jobs = the_jobs(tmp_path, generator, runtime)
    for name, found in zip(jobs, carry_out(tmp_path, list(jobs.values()), runtime), strict=True):
        folder, expected = alone[name]
        assert found["first_step"] == (11 if name in ("sft", "reward-lora") else 1), "it went on"
        ours, theirs = found["metrics"]["curve"], expected["metrics"]["curve"]
        assert len(ours) == 12 if name.startswith("sft") else len(ours) >= 8
        assert len({row["loss"] for row in ours}) >= len(ours) - 1, "the first step is at learning rate 0"
        for one, other in zip(ours, theirs, strict=True):
            assert one == pytest.approx(other, rel=1e-3, abs=1e-5), name
        for one, other in zip(
            found["metrics"].get("evaluations", []), expected["metrics"].get("evaluations", []), strict=True
        ):
            assert one == pytest.approx(other, rel=1e-3), name
        assert found["metrics"].get("best_step") == expected["metrics"].get("best_step")
        weights, wanted = (load_file(at / "model.safetensors") for at in (tmp_path / name, folder))
        assert weights.keys() == wanted.keys()
        for tensor in wanted:
            assert (weights[tensor] - wanted[tensor]).abs().max() < 5e-3, (name, tensor)
