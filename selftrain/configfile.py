"""Reads a run's config from a YAML file, which may be a shipped one, and applies overrides."""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from selftrain.config import SOURCES, STORE_VARIABLE, RunConfig, suggestion
from selftrain.errors import UsageError
from selftrain.yamlfile import parse_yaml, read_yaml

HERE = Path(__file__).parent
CONFIGS = next(
    (path for path in (HERE / "configs", HERE.parent / "configs") if path.is_dir()), HERE / "configs"
)
"""Folder of the shipped configs: inside the installed package, or next to the package in a checkout."""


def load_config(name: str, overrides: dict[str, Any] | None = None) -> RunConfig:
    """Read the config `name` (a file, or the name of a shipped config) and apply `overrides` (dotted name -> value).

    `runtime.deepspeed` becomes a full path (`find_deepspeed`). Raises UsageError, which names the key, the expected values and
    the value found.
    """
    path = find_config(name)
    values = read_settings(path)
    _switch(values, overrides or {})
    for key, value in (overrides or {}).items():
        _set(values, key, deepcopy(value))  # a later override may set something in it
    named = "name" in values
    values.setdefault("name", path.stem)
    if store := os.environ.get(STORE_VARIABLE):
        values.setdefault("store", store)
    try:
        config = RunConfig.model_validate(values)
    except ValidationError as error:
        problems = [_problem(item, named) for item in _first_causes(error.errors())]
        one = len(problems) == 1
        raise UsageError(
            f"{path}: {problems[0].strip()}" if one else "\n".join([f"{path}:", *problems])
        ) from None
    if config.runtime.deepspeed is None:
        return config
    deepspeed = find_deepspeed(config.runtime.deepspeed, path.parent)
    runtime = config.runtime.model_copy(update={"deepspeed": str(deepspeed)})
    return config.model_copy(update={"runtime": runtime})


def find_config(name: str, folder: Path = CONFIGS, what: str = "config") -> Path:
    """The file that `name` names: a path, or the name of a shipped file in `folder`. Raises UsageError if there is none.

    what  what the file is, for the message
    """
    if path := first_file(Path(name), folder / name, folder / f"{name}.yaml"):
        return path
    known = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
    raise UsageError(f"no {what} {name!r}: expected a YAML file or one of: {known}")


def read_settings(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML file; an empty one has none. Raises UsageError, with a message of one line."""
    try:
        values = read_yaml(path) or {}
    except ValueError as error:
        raise UsageError(f"{path}: not readable as YAML: {error}") from error
    if not isinstance(values, dict):
        raise UsageError(f"{path}: expected keys and values, got {type(values).__name__}")
    return values


def first_file(*paths: Path) -> Path | None:
    """The first of `paths` that is a file; a path that cannot be one, such as a text of thousands of characters, is none."""
    for path in paths:
        with suppress(OSError):
            if path.is_file():
                return path
    return None


def find_deepspeed(name: str, beside: Path) -> Path:
    """The JSON file that `runtime.deepspeed` names: a path relative to the working directory or to the folder `beside`, or the
    name of a shipped file."""
    shipped = CONFIGS / "deepspeed"
    if path := first_file(Path(name), beside / name, shipped / f"{name}.json"):
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
            overrides[key] = parse_yaml(value)
        except ValueError as error:
            raise UsageError(f"--set {item!r}: the value is not YAML: {error}") from error
    return overrides


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    """Set the dotted `key` in the nested dicts `values`."""
    *parents, last = key.split(".")
    for parent in parents:
        if not isinstance(values.setdefault(parent, {}), dict):
            raise UsageError(f"--set {key}: {parent} is a single value and has no settings below it")
        values = values[parent]
    values[last] = value


def _switch(values: dict[str, Any], overrides: Mapping[str, Any]) -> None:
    """Drop the settings of the file's problem source from `values` where the overrides name another source; `seed` is common
    to all sources."""
    problems = values.get("problems") or {}
    source = overrides.get("problems.source")
    if isinstance(problems, dict) and source is not None and source != problems.get("source", "bank"):
        values["problems"] = {"seed": problems["seed"]} if "seed" in problems else {}


def _first_causes(errors: Sequence[Any]) -> list[Any]:
    """`errors` without those of lists that are too short only because of a wrong item."""
    wrong = [error["loc"] for error in errors]
    return [
        error
        for error in errors
        if error["type"] != "too_short"
        or not any(loc[: len(error["loc"])] == error["loc"] != loc for loc in wrong)
    ]


def _problem(error: Any, named: bool) -> str:
    """One line about an error of pydantic. `named`: whether the config has a name of its own, in place of its file's."""
    # pydantic adds the source's name to the location.
    loc = [part for part in error["loc"] if part not in SOURCES]
    where = ".".join(str(part) for part in loc) or "config"
    if error["type"] == "extra_forbidden":
        known = _settings(error["loc"][:-1])
        parent, _, name = where.rpartition(".")
        return f"  {where}: no such setting{_suggested(parent, name, known)}"
    if error["type"] == "union_tag_invalid":
        known = [name for name in SOURCES if repr(name) in error["ctx"]["expected_tags"]]
        return f"  {where}.source: unknown source {error['ctx']['tag']!r}{suggestion(error['ctx']['tag'], known)}; known: {', '.join(known)}"
    if error["type"] == "value_error":
        return f"  {where}: {error['ctx']['error']}"  # a validator of this project, whose message says what was found
    if error["type"] == "missing":
        option = f", or with --set {where}=VALUE" if all(isinstance(part, str) for part in loc) else ""
        return f"  {where}: missing; set it in the config{option}"
    got = repr(error["input"])
    if expected := _expected(error, where):
        return f"  {where}: expected {expected}, got {got[:80]}"
    if loc == ["name"] and not named:
        return (
            f"  name: made from the file's name, {got[:80]}, and may have only letters, digits, dots, underscores and dashes, the "
            "first a letter or digit; rename the file, or set name in it"
        )
    return f"  {where}: {error['msg']}; got {got[:80]}"


def _expected(error: Any, where: str) -> str:
    """What a setting has to be that is a list or has settings below it, and is neither; empty for other errors."""
    if error["type"] in ("tuple_type", "list_type"):
        return f"a list, such as {where}: [{error['input'] if isinstance(error['input'], str) else '...'}]"
    if error["type"] in ("model_type", "model_attributes_type", "dict_type", "union_tag_not_found"):
        known = _settings(error["loc"])
        named = f" ({', '.join(known)})" if known else ""
        return f"settings below it{named}" + ", or no such line" * (error["input"] is None)
    return ""


def _suggested(parent: str, name: str, known: list[str]) -> str:
    """The end of the message about an unknown setting: settings of this name elsewhere, or the closest here, and the known settings."""
    close = suggestion(f"{parent}.{name}".strip("."), [f"{parent}.{one}".strip(".") for one in known])
    elsewhere = [path for path in _paths(RunConfig) if path.rpartition(".")[2] == name]
    meant = f"; did you mean {' or '.join(elsewhere)}?" if elsewhere else close
    return f"{meant}; there are: {', '.join(known)} (selftrain/config.py says what they mean)"


def _settings(loc: Sequence[str | int]) -> list[str]:
    """Names of the settings at `loc`, a location in pydantic's form."""
    models = [RunConfig]
    for part in loc:
        if part in SOURCES:
            models = [model for model in models if model.model_fields["source"].default == part]
        elif isinstance(part, str):
            fields = [model.model_fields[part] for model in models if part in model.model_fields]
            models = [model for field in fields for model in config_classes(field.annotation)]
    return list(dict.fromkeys(name for model in models for name in model.model_fields))


def config_classes(annotation: Any) -> list[type[Any]]:
    """The config classes in a field's type; a union of problem sources has several."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in config_classes(part)]


def _paths(model: type[BaseModel], before: str = "") -> list[str]:
    """Dotted names of all settings in `model` and its nested models."""
    found = []
    for name, field in model.model_fields.items():
        found.append(before + name)
        for inner in config_classes(field.annotation):
            found += _paths(inner, f"{before}{name}.")
    return list(dict.fromkeys(found))
