"""The one map from dbt's adapters to their SQL: sqlglot's dialect, and the lexicon where it is known for certain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from sqlglot.dialects.dialect import Dialect

from dagster_sao.sql import lexicon
from dagster_sao.sql.lexicon import Lexicon

DUCKDB = "duckdb"
"""sqlglot's name of the dialect of DuckDB, whose own parser can check a query too."""


@dataclass(frozen=True, slots=True)
class DistinctCounts:
    """How `count(distinct …)` may stand for GROUP BY in a database whose notion of equal values is tested."""

    pairs: tuple[tuple[str, str], ...] = ()
    """Strings of which some pair is equal under every collation that `count(distinct …)` ignores and GROUP BY does not."""
    has_rows: bool = False
    """Whether counting distinct rows of several columns is as fast as GROUP BY."""


@dataclass(frozen=True, slots=True)
class _Sql:
    """The SQL of one adapter."""

    dialect: str
    """sqlglot's name of it."""
    lexicon: Lexicon | None = None
    distinct_counts: DistinctCounts | None = None


# DuckDB before 2.0 ignores collations here (duckdb/duckdb#24319). NOCASE, NOACCENT, NFC, and those of its extension ICU, which
# all ignore a soft hyphen.
_PAIRS_OF_DUCKDB = (("a", "A"), ("e", "\u00e9"), ("\u00e9", "e\u0301"), ("a", "a\u00ad"))

_SQL: Mapping[str, _Sql] = {
    "athena": _Sql("athena", lexicon.TRINO),
    "bigquery": _Sql("bigquery", lexicon.BIGQUERY),
    "clickhouse": _Sql("clickhouse"),
    "databricks": _Sql("databricks", lexicon.SPARK),
    "dremio": _Sql("dremio"),
    "duckdb": _Sql(DUCKDB, lexicon.DUCKDB, DistinctCounts(_PAIRS_OF_DUCKDB, has_rows=True)),
    "fabric": _Sql("tsql", lexicon.TSQL),
    "fabricspark": _Sql("spark"),
    "glue": _Sql("spark", lexicon.SPARK),
    "greenplum": _Sql("postgres"),
    "postgres": _Sql("postgres", lexicon.POSTGRES, DistinctCounts()),
    "redshift": _Sql("redshift", lexicon.REDSHIFT),
    "snowflake": _Sql("snowflake", lexicon.SNOWFLAKE),
    "spark": _Sql("spark", lexicon.SPARK),
    "sqlite": _Sql("sqlite"),
    "sqlserver": _Sql("tsql", lexicon.TSQL),
    "synapse": _Sql("tsql", lexicon.TSQL),
    "trino": _Sql("trino", lexicon.TRINO),
    "vertica": _Sql("postgres"),
}
ADAPTERS = frozenset(_SQL)
"""The adapters that stand in the map. There are more, and a project may use one of them."""
_QUOTE_WITH_BACKTICKS = frozenset({"bigquery", "clickhouse", "databricks", "hive", "mysql", "spark"})


@lru_cache
def sqlglot_dialect(adapter: str) -> str | None:
    """Return sqlglot's name of an adapter's dialect, None for generic SQL where sqlglot has no such dialect.

    >>> sqlglot_dialect("sqlserver"), sqlglot_dialect("duckdb"), sqlglot_dialect("mysql"), sqlglot_dialect("unheard_of")
    ('tsql', 'duckdb', 'mysql', None)
    """
    name = _SQL[adapter].dialect if adapter in _SQL else adapter
    # Not through `Dialect.classes`, which imports every dialect.
    return name if Dialect.get(name) is not None else None


@lru_cache
def lexicon_of(adapter: str) -> Lexicon | None:
    """Return the lexicon of an adapter's SQL, None where it is not known: such SQL counts as it is written."""
    return _SQL[adapter].lexicon if adapter in _SQL else None


@lru_cache
def distinct_counts(adapter: str) -> DistinctCounts | None:
    """Return how `count(distinct …)` may stand for GROUP BY, None where that is not tested."""
    return _SQL[adapter].distinct_counts if adapter in _SQL else None


def quotes_with_backticks(dialect: str | None) -> bool:
    """Return whether text between backticks is a name in one of sqlglot's dialects.

    >>> quotes_with_backticks("spark"), quotes_with_backticks("postgres"), quotes_with_backticks(None)
    (True, False, False)
    """
    return dialect in _QUOTE_WITH_BACKTICKS
