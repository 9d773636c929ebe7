"""Fixtures for the tests of PPO."""

import pytest

from tests.selftrain.training.ppo.tiny import make_model


@pytest.fixture
def tiny():
    """See `make_model`."""
    return make_model()
