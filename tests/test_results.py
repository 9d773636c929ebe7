"""Tests that the figures in docs/results.md are those in the files that the named runs wrote, `docs/results/`."""

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PAGE, FILES = ROOT / "docs" / "results.md", ROOT / "docs" / "results"
NUMBER = r"[+-]?\d\.\d{3}"
ESTIMATE = re.compile(rf"({NUMBER})\s\[({NUMBER}),\s({NUMBER})\]")
"""A share of problems, or a difference of two, with its interval."""


def estimates(text: str) -> list[str]:
    """Each estimate in `text`, as `VALUE [LOW, HIGH]` without plus signs."""
    return [" ".join(found.split()).replace("+", "") for found in (m[0] for m in ESTIMATE.finditer(text))]


def sections() -> dict[str, str]:
    """Heading -> text of each section of the page that names a file of FILES."""
    parts = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]
    return {part.partition("\n")[0]: part for part in parts if files_of(part)}


def files_of(section: str) -> list[Path]:
    """The files that a section links to."""
    return [FILES / name for name in re.findall(r"\]\(results/([^)]+)\)", section)]


def rows(value: Any) -> Iterator[dict[str, Any]]:
    """All objects in a JSON value that have a value and an interval."""
    if isinstance(value, dict):
        if {"value", "low", "high"} <= set(value):
            yield value
        for part in value.values():
            yield from rows(part)
    elif isinstance(value, list):
        for part in value:
            yield from rows(part)


def written(path: Path) -> set[str]:
    """The estimates in a CSV or JSON file, in the page's form."""
    text = path.read_text()
    found = rows(json.loads(text)) if path.suffix == ".json" else csv.DictReader(text.splitlines())
    return {
        "{:.3f} [{:.3f}, {:.3f}]".format(*(float(row[name]) for name in ("value", "low", "high")))
        for row in found
    }


@pytest.mark.parametrize("heading", sections())
def test_every_estimate_of_a_section_is_in_the_files_that_it_names(heading: str) -> None:
    section = sections()[heading]
    there = set().union(*map(written, files_of(section)))
    said = estimates(section)
    assert said, "a section that names a file quotes it"
    assert [estimate for estimate in said if estimate not in there] == []


def test_every_estimate_of_the_readme_is_in_a_file() -> None:
    there = set().union(*map(written, FILES.iterdir()))
    said = estimates((ROOT / "README.md").read_text())
    assert said
    assert [estimate for estimate in said if estimate not in there] == []


def test_every_file_is_named_by_the_page() -> None:
    named = {path for section in sections().values() for path in files_of(section)}
    assert named == set(FILES.iterdir())


def test_what_is_quoted_is_read_as_it_is_written() -> None:
    assert estimates("gains +0.441 [0.407,\n0.475], less -0.011 [-0.043, 0.022] than") == [
        "0.441 [0.407, 0.475]",
        "-0.011 [-0.043, 0.022]",
    ]
    data = {"a": [{"value": 0.4405, "low": 0.40749, "high": 0.4751}], "b": {"value": 1}}
    assert list(rows(data)) == data["a"]
