"""The shop, parsed and built once for all histories of a session."""

from __future__ import annotations

import logging

import pytest

from tests.histories.world import Shop


@pytest.fixture(scope="session")
def shop(tmp_path_factory):
    # Runs that are made to fail would print their tracebacks.
    logging.getLogger("dagster").setLevel(logging.CRITICAL)
    return Shop(tmp_path_factory.mktemp("shop").resolve())
