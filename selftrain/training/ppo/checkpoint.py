"""Checkpoints of a PPO run: weights, optimizer and the rest of its state; whole or absent.

One process and DDP: safetensors and JSON. A DeepSpeed engine keeps its shards in a format of its own. There is no random
state to keep: every random number is made from the seed and its own position (see `rollout.seeded`).
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from selftrain.errors import UsageError
from selftrain.store.checkpoints import STATE, anew

PART = ".part"


def save(
    folder: Path,
    step: int,
    model: Any,
    optimizer: Any,
    state: dict[str, Any],
    accelerator: Any,
    keep: int = 1,
) -> None:
    """Write `folder/step-N`, under another name until it is whole, then delete all but the newest. Called by every rank.

    state  JSON values
    keep   how many stay
    """
    part = folder / PART
    part.mkdir(parents=True, exist_ok=True)
    if _is_engine(model):
        model.save_checkpoint(str(part), tag="engine")
    elif accelerator.is_main_process:
        save_file({name: p.detach() for name, p in _parameters(model)}, part / "model.safetensors")
        moments = optimizer.state_dict()["state"]
        save_file(
            {f"{index}.{name}": value for index, entry in moments.items() for name, value in entry.items()},
            part / "optimizer.safetensors",
        )
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        content = {"layout": _layout(model, accelerator), "state": state}
        (part / STATE).write_text(json.dumps(content))
        for path in part.rglob("*"):
            _to_disk(path)
        part.rename(folder / f"step-{step}")
        for _, path in sorted(_numbered(folder).items())[:-keep]:
            shutil.rmtree(path)
    accelerator.wait_for_everyone()


def resume(folder: Path, model: Any, optimizer: Any, accelerator: Any) -> dict[str, Any] | None:
    """Load the newest checkpoint in `folder` into `model` and `optimizer` and return its state; None where none is.

    Deletes what a killed `save` left. Called by every rank.

    Raises UsageError where the checkpoint is of another model, or was written by DeepSpeed and this run is not, or the other
    way round, or by another number of its ranks.
    """
    if accelerator.is_main_process and (folder / PART).exists():
        shutil.rmtree(folder / PART)
    accelerator.wait_for_everyone()
    found = _numbered(folder)
    if not found:
        return None
    newest = found[max(found)]
    content = json.loads((newest / STATE).read_text())
    if difference := _difference(content["layout"], _layout(model, accelerator)):
        raise UsageError(
            f"{newest}: a checkpoint of another run: {difference}; set that as it was to go on, or {anew(folder)}"
        )
    if _is_engine(model):
        model.load_checkpoint(str(newest), tag="engine")
    else:
        weights = load_file(newest / "model.safetensors")
        with torch.no_grad():
            for name, parameter in _parameters(model):
                parameter.copy_(weights[name])
        whole = optimizer.state_dict()
        whole["state"] = {}
        for key, value in load_file(newest / "optimizer.safetensors").items():
            index, name = key.split(".", 1)
            whole["state"].setdefault(int(index), {})[name] = value
        optimizer.load_state_dict(whole)
    state: dict[str, Any] = content["state"]
    return state


def _layout(model: Any, accelerator: Any) -> dict[str, Any]:
    """What has to be the same for a checkpoint to fit; JSON values."""
    engine = _is_engine(model)
    shapes = {name: list(getattr(p, "ds_shape", p.shape)) for name, p in _parameters(model)}
    return {
        "runtime.deepspeed": "set" if engine else "not set",
        "ranks of DeepSpeed": accelerator.num_processes if engine else None,
        "the model's parameters": shapes,
    }


def _difference(saved: dict[str, Any], now: dict[str, Any]) -> str | None:
    """The first difference between two layouts, in words."""
    for name, value in now.items():
        if saved[name] == value:
            continue
        if not isinstance(value, dict):
            return f"{name}: {saved[name]} then, {value} now"
        was = saved[name]
        first = next(key for key in sorted({*was, *value}) if was.get(key) != value.get(key))
        return f"{name}: {first} had shape {was.get(first)}, now {value.get(first)}"
    return None


def _is_engine(model: Any) -> bool:
    """Whether `model` is a DeepSpeed engine, told without importing DeepSpeed."""
    return hasattr(model, "save_checkpoint")


def _parameters(model: Any) -> list[tuple[str, Any]]:
    """Parameters by name, tied ones once; the same names with and without DDP around them."""
    return list(getattr(model, "module", model).named_parameters())


def _numbered(folder: Path) -> dict[int, Path]:
    return {int(path.name.removeprefix("step-")): path for path in folder.glob("step-*")}


def _to_disk(path: Path) -> None:
    if path.is_file():
        with path.open("rb") as file:
            os.fsync(file.fileno())
