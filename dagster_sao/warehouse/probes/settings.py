"""The settings of a source that decide how it is probed, read from its entry in the manifest. Pure."""

# ruff: noqa: ANN401  # values of a profile or manifest, of any type until they are looked at

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dagster_sao.core.manifest.graph import Source


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """The settings of one source that decide how it is probed."""

    loaded_at_query: str | None
    loaded_at_field: str | None
    filter: str | None
    opted_out: bool
    """Whether `freshness: null` is written on it, at whatever level."""
    is_external: bool
    """Whether dbt-duckdb reads it from files."""
    plugin: str | None
    """The dbt-duckdb plugin that loads it."""


def settings_of(source: Source) -> SourceSettings:
    """Return the probe settings of `source`.

    `loaded_at_query` and `loaded_at_field` never get here from one level: dbt refuses to parse them
    ("Cannot specify both loaded_at_field and loaded_at_query at table level"). Both in the manifest means that
    one is inherited, and the query wins as it does in dbt.
    """
    entry: Any = source.definition
    config = entry.get("config") or {}
    unrendered = entry.get("unrendered_config") or {}
    freshness = entry.get("freshness")
    # dbt-duckdb reads both places, the config last.
    options = {**(entry.get("meta") or {}), **config}
    return SourceSettings(
        loaded_at_query=_text(entry.get("loaded_at_query")),
        loaded_at_field=_text(entry.get("loaded_at_field")),
        filter=_text((freshness or {}).get("filter")),
        # A null that the user wrote is kept in `unrendered_config`; elsewhere it may only mean "nothing set".
        opted_out=freshness is None and "freshness" in unrendered and unrendered["freshness"] is None,
        is_external="external_location" in options and "plugin" not in options,
        plugin=str(options["plugin"]) if "plugin" in options else None,
    )


def place(source: Source) -> str:
    """Return the beginning of messages about a source: its name and its file.

    >>> place(Source("source.p.raw.x", "raw", "x", "models/sources.yml"))
    'raw.x (models/sources.yml)'
    """
    return f"{source.label} ({source.file})" if source.file else source.label


def does_not_exist(source: Source) -> str:
    """Return the message for a relation that the warehouse does not have."""
    return f"{place(source)} does not exist in the warehouse. Create it, or correct the source's schema and identifier"


def matches_no_file(source: Source) -> str:
    """Return the message for an external source without a file."""
    return (
        f"{place(source)} reads {relation_sql(source)}, which matches no file."
        " Add the file, or correct external_location"
    )


def relation_sql(source: Source) -> str:
    """Return the source as SQL for a FROM clause."""
    if source.relation_name:
        return source.relation_name
    parts = (source.database, source.schema, source.identifier)
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts if part)


def _text(value: Any) -> str | None:
    return str(value) if value not in (None, "") else None
