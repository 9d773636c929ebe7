"""The generated pages are what the code says."""

from pathlib import Path

import pytest

from infra.docs import pages


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_generated_pages_are_up_to_date(path: Path):
    assert path.exists(), "run: python -m infra.docs"
    assert path.read_text() == pages()[path], "run: python -m infra.docs"
