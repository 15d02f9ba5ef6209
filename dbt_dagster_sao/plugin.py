"""The plugin for dbt's plugin manager, which makes it once per invocation, before it parses the project."""

from __future__ import annotations

from dbt.plugins.manager import dbtPlugin

from dbt_dagster_sao.private_points.points import begin_session


class TracePlugin(dbtPlugin):
    """Offers dbt nothing: its creation marks the start of an invocation."""

    def initialize(self) -> None:
        """Begin to trace, or end it."""
        begin_session()


plugins = [TracePlugin]
