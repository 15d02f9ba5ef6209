"""What dbt's plugin manager finds: it is made once for each invocation of dbt, before the project is parsed."""

from __future__ import annotations

from dbt.plugins.manager import dbtPlugin

from dbt_dagster_sao.private_points.points import begin_session


class TracePlugin(dbtPlugin):
    """Offers dbt nothing: that dbt makes it says that an invocation begins."""

    def initialize(self) -> None:
        """Begin to trace, or end it."""
        begin_session()


plugins = [TracePlugin]
