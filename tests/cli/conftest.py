"""The corner shop for all tests of this folder."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def environment(corner_shop_environment):
    """The variables that the corner shop needs, for each test of this folder and no other."""
