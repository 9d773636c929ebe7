"""Reads a run's config: a YAML file, or the name of a shipped one, with overrides on top."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from selftrain.config import RunConfig
from selftrain.errors import UsageError

HERE = Path(__file__).parent
CONFIGS = next(
    (path for path in (HERE / "configs", HERE.parent / "configs") if path.is_dir()), HERE / "configs"
)
"""The shipped configs: inside the installed package, or beside it in a checkout."""


def load_config(name: str, overrides: dict[str, Any] | None = None) -> RunConfig:
    """The config called `name` (a file, or the name of one in `configs/`), with dotted `overrides` on top.

    `runtime.deepspeed` becomes the path that it means (`find_deepspeed`). Raises UsageError naming the key, what was
    expected and what was found.
    """
    path = find_config(name)
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: not readable as YAML: {error}") from error
    if not isinstance(values, dict):
        raise UsageError(f"{path}: expected keys and values, got {type(values).__name__}")
    for key, value in (overrides or {}).items():
        _set(values, key, value)
    values.setdefault("name", path.stem)
    try:
        config = RunConfig.model_validate(values)
    except ValidationError as error:
        raise UsageError(f"{path}:\n" + "\n".join(_problem(item) for item in error.errors())) from None
    if config.runtime.deepspeed is None:
        return config
    deepspeed = find_deepspeed(config.runtime.deepspeed, path.parent)
    runtime = config.runtime.model_copy(update={"deepspeed": str(deepspeed)})
    return config.model_copy(update={"runtime": runtime})


def find_config(name: str) -> Path:
    """The file that `name` means: a path, or the name of a shipped config."""
    for path in (Path(name), CONFIGS / name, CONFIGS / f"{name}.yaml"):
        if path.is_file():
            return path
    known = ", ".join(sorted(path.stem for path in CONFIGS.glob("*.yaml")))
    raise UsageError(f"no config {name!r}: expected a YAML file or one of: {known}")


def find_deepspeed(name: str, beside: Path) -> Path:
    """The JSON file that `runtime.deepspeed` means: a path from here or from the folder `beside`, or the name of a shipped
    one."""
    shipped = CONFIGS / "deepspeed"
    for path in (Path(name), beside / name, shipped / f"{name}.json"):
        if path.is_file():
            return path.resolve()
    known = ", ".join(sorted(path.stem for path in shipped.glob("*.json")))
    raise UsageError(
        f"runtime.deepspeed: no file {name!r} here or in {beside}; expected a DeepSpeed JSON file or one of: {known}"
    )


def parse_overrides(items: Sequence[str]) -> dict[str, Any]:
    """`["sft.epochs=2"]` as `{"sft.epochs": 2}`; values are YAML."""
    overrides = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise UsageError(f"--set {item!r}: expected KEY=VALUE, e.g. --set sft.epochs=2")
        try:
            overrides[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UsageError(f"--set {item!r}: the value is not YAML: {error}") from error
    return overrides


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        if not isinstance(values.setdefault(parent, {}), dict):
            raise UsageError(f"--set {key}: {parent} holds a single value, not settings of its own")
        values = values[parent]
    values[last] = value


def _problem(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"]) or "config"
    if error["type"] == "extra_forbidden":
        return f"  {where}: no such setting; see selftrain/config.py for the settings there are"
    if error["type"] == "value_error":
        return f"  {where}: {error['ctx']['error']}"  # our own message: it says what was found
    got = repr(error["input"])
    return f"  {where}: {error['msg']}; got {got[:80]}"
