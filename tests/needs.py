"""Skips a test whose requirements the machine does not meet, with the reason; in CI the test fails instead."""

import os
import shutil

import pytest

REQUIRE_ALL = os.environ.get("SELFTRAIN_REQUIRE_ALL") == "1"


def need(available: bool, reason: str) -> None:
    """Skip the running test with `reason` unless `available`; fail instead where SELFTRAIN_REQUIRE_ALL=1."""
    if available:
        return
    if REQUIRE_ALL:
        pytest.fail(f"{reason} (SELFTRAIN_REQUIRE_ALL=1 forbids the skip)")
    pytest.skip(reason)


def need_tools(*names: str) -> None:
    """Need the programs `names` on PATH."""
    missing = [name for name in names if shutil.which(name) is None]
    need(not missing, f"not on PATH: {', '.join(missing)}")
