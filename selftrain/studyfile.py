"""Reads a study file: named variants of one config, each of which runs with every seed."""

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

from selftrain.config import NAME, RANKERS, Resamples, RunConfig, Strict, suggestion
from selftrain.configfile import CONFIGS, find_config, load_config, read_settings
from selftrain.errors import UsageError

Overrides = dict[str, Any]
"""Dotted name of a setting -> its value."""

STUDYS_OWN = frozenset({"seed", "name"})
"""Settings that the study sets for each run."""


class StudyConfig(Strict):
    """The content of a study file. Overrides have the names and values of `selftrain run CONFIG --set A.B=VALUE`."""

    name: str = Field(default="study", pattern=NAME)
    """Name of the study's folder, and start of the names of its runs; the file's name if it is not given."""
    base: str
    """A config: a YAML file, relative to the study file or to the working directory, or the name of a shipped config."""
    set: Overrides = {}  # noqa: RUF012
    """Overrides of all variants."""
    seeds: tuple[int, ...] = Field(min_length=1)
    """Every variant runs once with each of these seeds."""
    baseline: str | None = None
    """The variant that the others are compared with; null: the first."""
    variants: dict[str, Overrides | None] = {}  # noqa: RUF012
    """Name of a variant -> its overrides."""
    axes: dict[str, tuple[Any, ...]] = {}  # noqa: RUF012
    """Name of a setting -> values. Each combination of values is a further variant, such as `rounds-1_mine.pools-all`."""
    pools: tuple[str, ...] = Field(default=("sft",), min_length=1)
    """Pools to report (`sft`, `ppo-1`, ...); a variant that lacks a pool has no rows for it."""
    differences: tuple[tuple[str, str], ...] = ()
    """Further differences to report: pairs of VARIANT/RANKER, the first less the second."""
    bootstrap: Resamples = 2000
    """Number of bootstrap resamples."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: expected none twice, got {list(self.seeds)}")
        if empty := [axis for axis, values in self.axes.items() if not values]:
            raise ValueError(f"axes.{empty[0]}: expected at least one value")
        if not self.variants and not self.axes:
            raise ValueError("expected entries in `variants`, `axes` or both, got none")
        return self


@dataclass(frozen=True)
class Cell:
    """One run of a study: a variant with a seed."""

    variant: str
    seed: int
    config: RunConfig

    @property
    def name(self) -> str:
        """The name of the cell's folder."""
        return f"{self.variant}-seed-{self.seed}"


@dataclass(frozen=True)
class Study:
    """A study that was read. `cells`: variant by variant in the order of the file, each with all seeds."""

    path: Path
    config: StudyConfig
    baseline: str
    cells: tuple[Cell, ...]

    @property
    def differences(self) -> list[tuple[tuple[str, str], tuple[str, str]]]:
        """`differences` of the file, each side as its variant and its ranker."""
        return [(_side(first), _side(second)) for first, second in self.config.differences]


def _side(text: str) -> tuple[str, str]:
    variant, _, ranker = text.partition("/")
    return variant, ranker


def read_study(name: str, overrides: Mapping[str, Any] | None = None) -> Study:
    """Read the study `name`, a YAML file or the name of a shipped study. `overrides` are those of all variants; a variant's own
    override them.

    Raises UsageError, with a message of one line, for a file or config that is not there, an unknown setting, a wrong value, or
    two variants with the same config.
    """
    path = find_config(name, CONFIGS / "studies", "study")
    values = read_settings(path)
    try:
        config = StudyConfig.model_validate({"name": path.stem} | values)
    except ValidationError as error:
        raise UsageError(f"{path}: {_mistake(error.errors()[0])}") from None
    variants = dict(_variants(path, config))
    if taken := sorted(STUDYS_OWN & (overrides or {}).keys()):
        raise UsageError(f"--set {taken[0]}: it is set for each run by the study itself")
    baseline = config.baseline or next(iter(variants))
    if baseline not in variants:
        raise UsageError(f"{path}: baseline: no variant {baseline!r}; there are: {', '.join(variants)}")
    for side in itertools.chain.from_iterable(config.differences):
        variant, ranker = _side(side)
        if variant not in variants or not ranker:
            raise UsageError(
                f"{path}: differences: expected VARIANT/RANKER, got {side!r}; variants: {', '.join(variants)}"
            )
    beside = path.parent / config.base
    base = str(beside) if beside.is_file() else config.base
    cells = []
    for variant, own in variants.items():
        for seed in config.seeds:
            changes = {**config.set, **(overrides or {}), **own, "seed": seed}
            changes["name"] = f"{config.name}-{variant}-{seed}"
            try:
                cells.append(Cell(variant, seed, load_config(base, changes)))
            except UsageError as error:
                raise UsageError(f"{path}: variant {variant}: {' '.join(str(error).split())}") from None
    _check_different(path, cells)
    _check_rankers(path, config, cells)
    return Study(path, config, baseline, tuple(cells))


def _mistake(error: Any) -> str:
    """One line about an error of pydantic, in the words of YAML and not of Python."""
    where = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        said = f"no such key{suggestion(where, StudyConfig.model_fields)}; there are: {', '.join(StudyConfig.model_fields)}"
    elif error["type"] == "missing":
        said = "missing; docs/studies.md lists the keys"
    elif error["type"] == "too_short":
        said = "expected at least one value"
    elif error["type"] in ("tuple_type", "dict_type"):
        kind = (
            "a list, such as [1, 2]"
            if error["type"] == "tuple_type"
            else "names, each with a value behind it"
        )
        said = f"expected {kind}, got {error['input']!r:.80}"
    else:
        said = error["msg"]
    return f"{where}: {said}" if where else str(said)


def _variants(path: Path, config: StudyConfig) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and overrides of each variant. Raises UsageError for a name that cannot be a folder's, or that occurs twice."""
    found = [(name, own or {}) for name, own in config.variants.items()]
    for values in itertools.product(*config.axes.values()) if config.axes else ():
        own = dict(zip(config.axes, values, strict=True))
        words = (
            f"{axis}-{value if isinstance(value, str) else json.dumps(value, default=str)}"
            for axis, value in own.items()
        )
        found.append((re.sub(r"[^A-Za-z0-9._-]+", "-", "_".join(words)).strip("-"), own))
    names = [name for name, _ in found]
    for name, own in found:
        if not re.fullmatch(NAME, name):
            raise UsageError(
                f"{path}: variant {name!r}: expected a name of letters, digits, dots, hyphens and underscores"
            )
        if names.count(name) > 1:
            raise UsageError(f"{path}: two variants have the name {name!r}; choose others")
        if taken := sorted(STUDYS_OWN & {*own, *config.set}):
            raise UsageError(f"{path}: variant {name}: {taken[0]} is set for each run by the study itself")
        yield name, own


def _check_rankers(path: Path, config: StudyConfig, cells: list[Cell]) -> None:
    """Raise UsageError for a difference with a ranker that no run of its variant can have, since the table would just lack it."""
    foreign = {cell.variant: set(cell.config.evaluate.reward_models) for cell in cells}
    for side in itertools.chain.from_iterable(config.differences):
        variant, ranker = _side(side)
        name = re.split(r"[+~]", ranker)[0]  # with log-probability, with agreement, as a control
        if name not in RANKERS | foreign[variant] and not re.fullmatch(r"rm-\d+", name):
            known = ", ".join(sorted(RANKERS | foreign[variant]))
            raise UsageError(
                f"{path}: differences: no ranker {ranker!r}; expected rm-1, rm-2, ... or one of {known}"
            )


def _check_different(path: Path, cells: list[Cell]) -> None:
    """Raise UsageError if two variants have the same config."""
    seen: list[tuple[RunConfig, Cell]] = []
    for cell in cells:
        config = cell.config.model_copy(update={"name": "study"})
        for other, before in seen:
            if other == config:
                raise UsageError(same(path, before.variant, cell.variant))
        seen.append((config, cell))


def same(path: Path, first: str, second: str) -> str:
    """The message about two variants that are one."""
    return f"{path}: the variants {first} and {second} are the same run; change a setting of one, or leave it out"
