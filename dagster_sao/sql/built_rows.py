"""Whether a relation holds exactly the rows of its model's query, from the model's entry in dbt's manifest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_BY_THE_QUERY = frozenset({"table", "view"})
_CHANGE_ROWS = ("pre-hook", "post-hook", "sql_header")
# Settings of adapters about where and how rows are stored, which do not change the rows.
_STORAGE = frozenset(
    {
        "automatic_clustering", "backup", "bind", "buckets", "cluster_by", "clustered_by", "copy_grants", "dist", "distributed_by",
        "file_format", "indexes", "labels", "location_root", "partition_by", "query_tag", "secure", "snowflake_warehouse", "sort",
        "sort_type", "table_properties", "tblproperties", "tmp_relation_type", "transient", "unlogged",
    }
)  # fmt: skip
_OF_DBT = frozenset(
    {
        "_extra", "access", "alias", "auto_liquid_cluster", "batch_size", "begin", "column_types", "concurrent_batches", "contract",
        "database", "delimiter", "docs", "enabled", "event_time", "freshness", "full_refresh", "grants", "group",
        "incremental_predicates", "incremental_strategy", "latest_version_pointer", "lookback", "materialized",
        "merge_exclude_columns", "merge_update_columns", "meta", "on_configuration_change", "on_error", "on_schema_change", "packages", "persist_docs",
        "post-hook", "pre-hook", "quote_columns", "quoting", "schema", "sql_header", "state", "static_analysis", "submission_method",
        "tags", "unique_key",
    }
)  # fmt: skip


def why_rows_may_differ(model: Mapping[str, Any]) -> str:
    """Return why a relation may hold other rows than its query gives, as the end of a sentence; empty where it does not.

    >>> why_rows_may_differ({"resource_type": "model", "language": "sql", "config": {"materialized": "table"}})
    ''
    >>> why_rows_may_differ({"resource_type": "snapshot", "config": {"materialized": "snapshot"}})
    'it is a snapshot, which keeps rows of earlier builds'
    """
    config = model.get("config") or {}
    materialized = str(config.get("materialized") or "unknown")
    if model.get("resource_type") != "model" or materialized not in _BY_THE_QUERY:
        is_model = model.get("resource_type") == "model"
        kind = f"{materialized} model" if is_model else str(model.get("resource_type"))
        keeps = ", which keeps rows of earlier builds" if materialized in _KEEP_ROWS else ""
        return f"it is {_article(kind)} {kind}{keeps}"
    if (model.get("language") or "sql") != "sql":
        return "it is a Python model"
    if has_contract(model):
        return "its contract may convert its values"
    return _why_changed(config)


def has_contract(model: Mapping[str, Any]) -> bool:
    """Return whether dbt builds a model by an enforced contract."""
    return bool(((model.get("config") or {}).get("contract") or {}).get("enforced"))


def has_its_constraints(model: Mapping[str, Any]) -> bool:
    """Return whether a relation certainly has the constraints of its model's contract when dbt has built it.

    dbt writes them into the statement that creates a table: https://docs.getdbt.com/reference/resource-properties/constraints.
    An incremental model keeps the table that an older contract created.
    """
    config = model.get("config") or {}
    is_table = model.get("resource_type") == "model" and config.get("materialized") == "table"
    return is_table and (model.get("language") or "sql") == "sql" and has_contract(model) and not _why_changed(config)


def _why_changed(config: Mapping[str, Any]) -> str:
    found = next((name for name in _CHANGE_ROWS if config.get(name)), None)
    if found:
        return f"its {found} may change them"
    unknown = sorted(name for name, value in config.items() if value is not None and name not in _STORAGE | _OF_DBT)
    return f"its setting `{unknown[0]}` may change them" if unknown else ""


_KEEP_ROWS = frozenset({"incremental", "snapshot"})


def _article(word: str) -> str:
    return "an" if word[:1] in "aeiou" else "a"
