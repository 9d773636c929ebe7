"""Keeps a command from asking the Hugging Face hub where it names no model there."""

import os
from pathlib import Path


def offline(*places: str | None) -> None:
    """Make the hub's library answer from its cache alone, unless one of `places` may be OWNER/NAME on the hub. Call it before that
    library is imported."""
    if not any(place and "/" in place and not Path(place).exists() for place in places):
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
