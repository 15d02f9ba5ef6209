"""Whether a last-modified time moves with every change of a table's rows. Read from the adapters' own queries. Pure.

What is not known to be sound is not: a time that misses a delete would silently hide it.
"""

from __future__ import annotations

from dagster_sao.core.manifest.graph import Source

# Read from the macro `get_relation_last_modified` of each adapter, or the API that it calls instead.
_SOUND = frozenset({"bigquery", "databricks", "snowflake"})
_REASONS = {
    "fabric": "the time that dbt reads from fabric is that of the last DDL, which misses inserts, updates and deletes",
    "redshift": "the time that dbt reads from redshift without `datasharing: true` is that of the last insert,"
    " which misses deletes",
    "sqlserver": "the time that dbt reads from sqlserver is that of the last DDL, which misses inserts, updates and deletes",
    "teradata": "the time that dbt reads from teradata is that of the last ALTER, which misses inserts, updates and deletes",
    "vertica": "the time that dbt reads from vertica is that of its creation, which misses every later change",
}


def why_unsound(source: Source, adapter_type: str, *, shows_redshift_tables: bool) -> str | None:
    """Return why the last-modified time of this source's adapter proves nothing, None where it does."""
    if adapter_type == "bigquery" and (source.identifier or "").endswith("*"):
        return "the time of a BigQuery wildcard table is always now"
    if adapter_type in _SOUND or shows_redshift_tables:
        return None
    return _REASONS.get(
        adapter_type, f"the last-modified time of {adapter_type} is not known to move with every change"
    )


def why_unsound_kind(kinds: tuple[str, ...]) -> str | None:
    """Return why the last-modified time of such a relation proves nothing, None for a table.

    >>> why_unsound_kind(("table",))
    >>> why_unsound_kind(("external",))
    'the last-modified time of a relation of type external is not known to move with its rows'
    """
    if kinds == ("table",):
        return None
    if not kinds:
        return "its schema's listing does not tell whether it is a table"
    if len(kinds) > 1:
        return "another relation has the same name but for upper and lower case, and dbt mixes up their last-modified times"
    if kinds == ("deltasharing table",):
        return "the last-modified time of a Delta share moves with every synchronization"
    return f"the last-modified time of a relation of type {kinds[0]} is not known to move with its rows"
