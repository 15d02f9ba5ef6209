"""Records, inside dbt, what each node really read while it was built.

dbt-core imports every module whose name starts with `dbt_` and asks it for `plugins`
(`dbt.plugins.manager`). So this package is loaded in every dbt process of the environment, and must cost
next to nothing: it imports nothing until the variable `DAGSTER_SAO_TRACE` names a file.

It must not import Dagster. `dagster_sao` imports modules from here; the other way, only `dagster_sao.sql` is imported, when data
tests are to be answered with fewer queries.
"""

from __future__ import annotations

import os
import sys
from typing import Any

TRACE_FILE = "DAGSTER_SAO_TRACE"
"""The environment variable that names the file to append to; relative to dbt's target folder."""
TRACE_KEY = "DAGSTER_SAO_TRACE_KEY"
"""The environment variable that holds the key with which values of environment variables are hashed."""
TEST_REQUEST = "DAGSTER_SAO_TEST_REQUEST"
"""The environment variable that names the file with the request about data tests (`data_tests.DataTestRequest`)."""

BUILD_SECONDS = "DAGSTER_SAO_BUILD_SECONDS"
"""The environment variable that names the file with the predicted seconds of each node, for dbt to begin with the longest path."""


def __getattr__(name: str) -> Any:
    """Return dbt's plugins of this package: one if a trace is requested, else none."""
    if name != "plugins":
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    # A process that traced an earlier dbt invocation must learn that this one is not traced.
    if not os.environ.get(TRACE_FILE) and f"{__name__}.plugin" not in sys.modules:
        return []
    from dbt_dagster_sao.plugin import plugins

    return plugins
