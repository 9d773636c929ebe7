"""Tests of study files: cells, axes, precedence of overrides, and one line for each mistake."""

from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from selftrain.configfile import CONFIGS
from selftrain.errors import UsageError
from selftrain.studyfile import Study, read_study


def study(folder: Path, overrides: dict[str, Any] | None = None, **values: Any) -> Study:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({"base": "smoke", "seeds": [1, 2]} | values, sort_keys=False))
    return read_study(str(path), overrides)


def test_cells_are_variants_times_seeds(tmp_path: Path) -> None:
    found = study(tmp_path, set={"mine.threshold": 0.1}, variants={"a": None, "b": {"rounds": 1}})
    assert [cell.name for cell in found.cells] == ["a-seed-1", "a-seed-2", "b-seed-1", "b-seed-2"]
    assert [(cell.config.seed, cell.config.rounds) for cell in found.cells] == [
        (1, 2),
        (2, 2),
        (1, 1),
        (2, 1),
    ]
    assert {cell.config.mine.threshold for cell in found.cells} == {0.1}
    # Names of their own, so that `selftrain gc` keeps what each of them needs.
    assert [cell.config.name for cell in found.cells] == ["mine-a-1", "mine-a-2", "mine-b-1", "mine-b-2"]
    assert found.baseline == "a"


def test_axes_are_combined(tmp_path: Path) -> None:
    axes = {"rounds": [1, 3], "mine.pools": ["all", "sft"]}
    found = study(
        tmp_path, seeds=[7], variants={"as-it-is": {}}, axes=axes, baseline="rounds-3_mine.pools-sft"
    )
    assert [(cell.variant, cell.config.rounds, cell.config.mine.pools) for cell in found.cells] == [
        ("as-it-is", 2, "all"),
        ("rounds-1_mine.pools-all", 1, "all"),
        ("rounds-1_mine.pools-sft", 1, "sft"),
        ("rounds-3_mine.pools-all", 3, "all"),
        ("rounds-3_mine.pools-sft", 3, "sft"),
    ]


def test_a_variant_wins_over_the_command_line_and_that_over_the_file(tmp_path: Path) -> None:
    given = {"sft.epochs": 3, "rounds": 5}
    found = study(tmp_path, given, set={"sft.epochs": 9}, variants={"a": {"rounds": 1}}, seeds=[1])
    assert (found.cells[0].config.sft.epochs, found.cells[0].config.rounds) == (3, 1)


def test_a_variant_that_changes_a_part_of_a_common_setting_leaves_the_others_alone(tmp_path: Path) -> None:
    variants = {"a": {"mine.kinds.easy": 1}, "b": {}}
    found = study(tmp_path, seeds=[1], set={"mine.kinds": {"hard_negative": 2}}, variants=variants)
    assert [cell.config.mine.kinds for cell in found.cells] == [
        {"hard_negative": 2, "easy": 1},
        {"hard_negative": 2},
    ]


def test_the_base_may_lie_beside_the_study(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("rounds: 4\n")
    assert study(tmp_path, base="own.yaml", variants={"a": {}}).cells[0].config.rounds == 4


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"axes": {"mine.treshold": [0, 1]}}, "variant mine.treshold-0: .*mine.treshold: no such setting.* mine.threshold"),
        ({"axis": {"rounds": [1]}}, r"axis: no such key; did you mean axes\?; there are: name, base, .*axes"),
        ({"axes": {"rounds": []}}, "axes.rounds: expected at least one value"),
        ({"base": "nowhere", "variants": {"a": {}}}, "variant a: no config 'nowhere': .*demo"),
        ({"variants": {"a": {}, "b": {"rounds": 2}}}, "the variants a and b are the same run"),
        ({"variants": {"a": {"rounds": "many"}}}, "variant a: .* rounds: "),
        ({"variants": {"a": {"seed": 3}}}, "variant a: seed is set for each run by the study itself"),
        ({"variants": {"a b": {}}}, "variant 'a b': expected a name of letters"),
        ({"variants": {"rounds-1": {}}, "axes": {"rounds": [1]}}, "two variants have the name 'rounds-1'"),
        ({"variants": {"a": {}}, "baseline": "c"}, "baseline: no variant 'c'; there are: a"),
        ({"variants": {"a": {}}, "seeds": [1, 1]}, "seeds: expected none twice"),
        ({"variants": {"a": {}}, "seeds": []}, "seeds: expected at least one value$"),
        ({"variants": {"a": {}}, "seeds": 1}, r"seeds: expected a list, such as \[1, 2\], got 1$"),
        ({"variants": ["a", "b"]}, r"variants: expected names, each with a value behind it, got \['a', 'b'\]$"),
        ({"variants": {"a": {}}, "base": None}, "base: Input should be a valid string"),
        ({"axes": {"rounds": [date(2026, 1, 1)]}}, "variant rounds-2026-01-01: .* rounds: "),
        ({"variants": {"a": {}}, "differences": [["a/reranker", "b/greedy"]]}, "VARIANT/RANKER, got 'b/greedy'; variants: a"),
        ({"variants": {"a": {}}, "differences": [["a", "a/greedy"]]}, "differences: expected VARIANT/RANKER, got 'a'"),
        ({"variants": {"a": {}}, "differences": [["a/chosn", "a/rm-1"]]}, "differences: no ranker 'chosn'; expected rm-1, .* chosen"),
        ({}, "expected entries in `variants`, `axes` or both, got none"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_in_one_line(tmp_path: Path, values: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said) as error:
        study(tmp_path, **values)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize("setting", ["seed", "name"])
def test_the_command_line_cannot_set_what_the_study_sets(tmp_path: Path, setting: str) -> None:
    with pytest.raises(UsageError, match=f"--set {setting}: it is set for each run by the study itself"):
        study(tmp_path, {setting: 7}, variants={"a": {}})


def test_a_file_that_is_no_study_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no study 'nowhere': .* evidence"):
        read_study("nowhere")
    (tmp_path / "broken.yaml").write_text("a: [1\nb: 2\n")
    with pytest.raises(UsageError, match=r"broken\.yaml: not readable as YAML") as error:
        read_study(str(tmp_path / "broken.yaml"))
    assert "\n" not in str(error.value)
    (tmp_path / "list.yaml").write_text("[1]\n")
    with pytest.raises(UsageError, match="expected keys and values, got list"):
        read_study(str(tmp_path / "list.yaml"))


@pytest.mark.parametrize("path", sorted((CONFIGS / "studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_study_can_be_read(path: Path) -> None:
    found = read_study(path.stem)
    assert {cell.seed for cell in found.cells} == set(found.config.seeds)
