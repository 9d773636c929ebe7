"""Saves and loads atomic checkpoints of a PPO run: weights, optimizer state and `State`.

Without DeepSpeed a checkpoint consists of safetensors files and JSON; a DeepSpeed engine writes its shards in DeepSpeed's format.
No random state is saved: every random number is derived from the seed and the place where it is used (see `rollout.seeded`).
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
"""Folder of an incomplete checkpoint."""


def save(
    folder: Path,
    step: int,
    model: Any,
    optimizer: Any,
    state: dict[str, Any],
    accelerator: Any,
    keep: int = 1,
) -> None:
    """Write the checkpoint `folder/step-N`, then delete all but the newest `keep` checkpoints. Every rank must call this.

    The checkpoint is written under another name and renamed when it is complete, so the write is atomic.

    state  the fields of `State`, JSON values
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
        for path in filter(Path.is_file, part.rglob("*")):
            with path.open("rb") as file:
                os.fsync(file.fileno())
        part.rename(folder / f"step-{step}")
        for _, path in sorted(_numbered(folder).items())[:-keep]:
            shutil.rmtree(path)
    accelerator.wait_for_everyone()


def resume(folder: Path, model: Any, optimizer: Any, accelerator: Any) -> dict[str, Any] | None:
    """Load the newest checkpoint in `folder` into `model` and `optimizer`; returns its `state`, or None without a checkpoint.

    Also deletes an incomplete checkpoint that a killed process left. Every rank must call this.

    Raises UsageError where the checkpoint has other parameters than `model`, where either this run or the checkpoint uses
    DeepSpeed and the other does not, or where the number of DeepSpeed's ranks differs.
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
        restored = optimizer.state_dict()
        restored["state"] = {}
        for key, value in load_file(newest / "optimizer.safetensors").items():
            index, name = key.split(".", 1)
            restored["state"].setdefault(int(index), {})[name] = value
        optimizer.load_state_dict(restored)
    state: dict[str, Any] = content["state"]
    return state


def _layout(model: Any, accelerator: Any) -> dict[str, Any]:
    """The properties that a checkpoint and the run that resumes from it must have in common; JSON values."""
    engine = _is_engine(model)
    shapes = {name: list(getattr(p, "ds_shape", p.shape)) for name, p in _parameters(model)}
    return {
        "runtime.deepspeed": "set" if engine else "not set",
        "ranks of DeepSpeed": accelerator.num_processes if engine else None,
        "the model's parameters": shapes,
    }


def _difference(saved: dict[str, Any], now: dict[str, Any]) -> str | None:
    """Describe the first difference between two layouts, for an error message; None where they are equal."""
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
    """Whether `model` is a DeepSpeed engine. Tested by an attribute, so that DeepSpeed need not be imported."""
    return hasattr(model, "save_checkpoint")


def _parameters(model: Any) -> list[tuple[str, Any]]:
    """The model's parameters by name, tied parameters once. The names are the same with and without DDP."""
    return list(getattr(model, "module", model).named_parameters())


def _numbered(folder: Path) -> dict[int, Path]:
    return {int(path.name.removeprefix("step-")): path for path in folder.glob("step-*")}
