"""Tests of when commands may ask the Hugging Face hub."""

import os
from pathlib import Path

import pytest

from flows.offline import offline


@pytest.mark.parametrize(
    ("places", "asks"),
    [
        (["demo"], False),
        (["runs/demo", None], False),
        (["champion"], False),
        (["me/tiny"], True),
        (["demo", "me/tiny@main"], True),
    ],
)
def test_the_hub_is_asked_only_for_what_is_not_on_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, places: list[str | None], asks: bool
):
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "")  # restored after the test
    monkeypatch.delenv("HF_HUB_OFFLINE")
    offline(*places)
    assert os.environ.get("HF_HUB_OFFLINE") == (None if asks else "1")
