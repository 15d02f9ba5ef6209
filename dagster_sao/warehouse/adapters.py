"""What is special about each database, one value each. An adapter that is not known has the traits that miss nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version

# From this version on DuckDB binds a view anew whenever it is read; before, it fails when the columns have changed.
_DUCKDB_BINDS_LATE = 2


@dataclass(frozen=True, slots=True)
class AdapterTraits:
    """What holds on one database."""

    binds_views: bool = True
    """Whether the columns of a view stay as they were when it was created, whatever becomes of those that it reads."""
    lists_columns: bool = False
    """Whether the listing of relations tells their columns."""
    sizes_seed_columns: bool = True
    """Whether dbt may give a column of a seed the length or precision of its longest value, beside a type."""


_TRAITS: Mapping[str, AdapterTraits] = {
    "bigquery": AdapterTraits(sizes_seed_columns=False),
    "databricks": AdapterTraits(sizes_seed_columns=False),
    "duckdb": AdapterTraits(lists_columns=True, sizes_seed_columns=False),
    "postgres": AdapterTraits(lists_columns=True, sizes_seed_columns=False),
    "snowflake": AdapterTraits(lists_columns=True, sizes_seed_columns=False),
}


def traits_of(adapter_type: str) -> AdapterTraits:
    """Return the traits of an adapter, on DuckDB those of the version that is installed."""
    traits = _TRAITS.get(adapter_type, AdapterTraits())
    return replace(traits, binds_views=False) if adapter_type == "duckdb" and _duckdb_binds_late() else traits


def _duckdb_binds_late() -> bool:
    try:
        return int(version("duckdb").partition(".")[0]) >= _DUCKDB_BINDS_LATE
    except (PackageNotFoundError, ValueError):
        return False
