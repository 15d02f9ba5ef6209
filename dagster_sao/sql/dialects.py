"""Which of sqlglot's dialects an adapter of dbt speaks: the one map."""

from __future__ import annotations

from functools import lru_cache

from sqlglot.dialects.dialect import Dialect

_NAMES = {"sqlserver": "tsql", "synapse": "tsql", "fabric": "tsql", "glue": "spark"}


@lru_cache
def sqlglot_dialect(adapter: str) -> str | None:
    """Return sqlglot's name of an adapter's dialect, None (its own dialect) for one that it does not have."""
    name = _NAMES.get(adapter, adapter)
    return name if Dialect.get(name) is not None else None
