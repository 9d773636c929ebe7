"""Checkpoints of a PPO run: weights and optimizer as safetensors, the rest as JSON; whole or absent.

There is no random state to keep: every random number is made from the seed and its own position (see `rollout.seeded`).
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, load_model, save_file, save_model


def save(folder: Path, step: int, model: Any, optimizer: Any, state: dict[str, Any]) -> None:
    """Write `folder/step-N`, under another name until it is whole, then delete the older ones.

    state  JSON values
    """
    part = folder / f".part-{os.getpid()}"
    part.mkdir(parents=True, exist_ok=True)
    save_model(model, str(part / "model.safetensors"))
    moments = optimizer.state_dict()["state"]
    save_file(
        {f"{index}.{name}": value for index, entry in moments.items() for name, value in entry.items()},
        part / "optimizer.safetensors",
    )
    (part / "state.json").write_text(json.dumps(state))
    for path in part.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    older = _numbered(folder)
    part.rename(folder / f"step-{step}")
    for path in older.values():
        shutil.rmtree(path)


def resume(folder: Path, model: Any, optimizer: Any) -> dict[str, Any] | None:
    """Load the newest checkpoint in `folder` into `model` and `optimizer` and return its state; None where none is."""
    found = _numbered(folder)
    if not found:
        return None
    newest = found[max(found)]
    load_model(model, str(newest / "model.safetensors"))
    whole = optimizer.state_dict()
    whole["state"] = {}
    for key, value in load_file(newest / "optimizer.safetensors").items():
        index, name = key.split(".", 1)
        whole["state"].setdefault(int(index), {})[name] = value
    optimizer.load_state_dict(whole)
    state: dict[str, Any] = json.loads((newest / "state.json").read_text())
    return state


def remove_parts(folder: Path) -> None:
    """Delete what a killed `save` left."""
    for path in folder.glob(".part-*"):
        shutil.rmtree(path)


def _numbered(folder: Path) -> dict[int, Path]:
    return {int(path.name.removeprefix("step-")): path for path in folder.glob("step-*")}
