"""Tests that NaN and infinite numbers in safetensors files are found, in every format and position, and never stored."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from selftrain.errors import DataError, UsageError
from selftrain.models.weights import checkpoint_digest
from selftrain.records import Candidate, write_records
from selftrain.stage import ArtifactRef, Outcome
from selftrain.store import weights
from selftrain.store.store import Store, sha256_file

KINDS = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2, torch.float8_e4m3fn]


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("place", [0, 1000, -1])
def test_a_number_that_is_not_finite_is_found_in_every_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: torch.dtype, place: int
):
    monkeypatch.setattr(weights, "BLOCK", 1 << 10)  # bytes, so that there are many blocks
    largest = torch.finfo(kind).max
    sound = torch.ones(1500).to(kind)
    sound[0], sound[1], sound[2] = largest, -largest, 0.0
    harmed = sound.clone()
    harmed[place] = torch.nan
    whole = {"a": sound, "b": torch.full((7,), 2**31 - 1, dtype=torch.int32), "c": torch.zeros(0)}
    save_file(whole, tmp_path / "sound.safetensors")
    save_file(whole | {"d": harmed}, tmp_path / "harmed.safetensors")
    found = weights.read(tmp_path / "sound.safetensors")
    assert (found.tensors, found.wrong, found.sha256) == (3, [], sha256_file(tmp_path / "sound.safetensors"))
    found = weights.read(tmp_path / "harmed.safetensors")
    assert (found.tensors, found.wrong, found.sha256) == (
        4,
        ["d"],
        sha256_file(tmp_path / "harmed.safetensors"),
    )


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_weights_that_are_not_finite_are_never_stored(tmp_path: Path, value: float):
    store, ref = Store(str(tmp_path / "store")), ArtifactRef("sft", "a" * 32)

    def make(folder: Path) -> Outcome:
        save_file({"good": torch.ones(3)}, folder / "model-00001-of-00002.safetensors")
        save_file({"bad": torch.tensor([1.0, value])}, folder / "model-00002-of-00002.safetensors")
        return Outcome("digest")

    with pytest.raises(
        UsageError, match=r"sft/a+: 1 of 2 tensors hold NaN or infinities \(model-00002.*: bad\)"
    ):
        store.build(ref, {}, make)
    assert store.manifest(ref) is None


@pytest.mark.parametrize(
    ("figures", "where"),
    [
        ({"loss": float("nan")}, r"figures\.loss is nan"),
        (
            {"curve": [{"step": 1, "loss": 2.0}, {"step": 2, "loss": float("inf")}]},
            r"figures\.curve\.1\.loss is inf",
        ),
        ({"a": {"b": float("-inf")}}, r"figures\.a\.b is -inf"),
    ],
)
def test_figures_that_are_no_numbers_are_never_stored(tmp_path: Path, figures: dict, where: str):
    store, ref = Store(str(tmp_path / "store")), ArtifactRef("ppo", "b" * 32)
    with pytest.raises(UsageError, match=where):
        store.build(ref, {}, lambda folder: Outcome("digest", figures))
    assert store.manifest(ref) is None


def test_a_file_that_is_cut_short_is_told(tmp_path: Path):
    (tmp_path / "model.safetensors").write_bytes(b"\x10\0\0")
    with pytest.raises(UsageError, match="not a whole safetensors file"):
        weights.read(tmp_path / "model.safetensors")


def test_records_with_numbers_that_are_not_finite_are_not_written(tmp_path: Path):
    rows = [
        Candidate(f"p#{at}", "p", at, "x", (1,), value, "stop")
        for at, value in enumerate((-1.0, float("nan")))
    ]
    with pytest.raises(DataError, match=r"candidates\.parquet: logprob is nan in 1 of 2 rows, p#1 for one"):
        write_records(tmp_path / "candidates.parquet", rows, Candidate)
    assert not (tmp_path / "candidates.parquet").exists()


def test_samples_tell_trained_weights_apart_without_reading_them_whole(tmp_path: Path):
    """Of each tensor the beginning, the middle and the end count: a small one counts whole."""
    path = tmp_path / "model.safetensors"
    whole = {
        "large": torch.zeros(1 << 16),
        "middle": torch.zeros(5000).half(),
        "one": torch.zeros(1),
        "none": torch.zeros(0),
    }

    def digest(changed: dict[str, torch.Tensor]) -> str:
        save_file(whole | changed, path)
        return weights.sha256_of_samples(path)

    first = digest({})
    assert digest({}) == first
    between = torch.zeros(1 << 16)
    between[2000] = 1
    assert digest({"large": between}) == first
    changes = [{name: whole[name] + 1} for name in ("large", "middle", "one")]
    for place in (0, 1 << 15, -1):
        placed = torch.zeros(1 << 16)
        placed[place] = 1
        changes.append({"large": placed})
    changes += [{"other": torch.zeros(1)}, {"one": torch.zeros(1).double()}]
    assert len({first, *map(digest, changes)}) == 1 + len(changes)
    path.write_bytes(b"{}")
    with pytest.raises(UsageError, match="not a whole safetensors file"):
        weights.sha256_of_samples(path)


def test_a_checkpoint_that_cannot_be_read_is_told(tmp_path: Path):
    with pytest.raises(UsageError, match=f"^checkpoint: {tmp_path / 'none'} cannot be read: "):
        checkpoint_digest(tmp_path / "none")
