"""The one map from dbt's adapters to their SQL: sqlglot's dialect, and the lexicon where it is known for certain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import sqlglot
from sqlglot import exp
from sqlglot.dialects.dialect import Dialect

from dagster_sao.sql import lexicon
from dagster_sao.sql.lexicon import Lexicon

DUCKDB = "duckdb"
"""sqlglot's name of the dialect of DuckDB, whose own parser can check a query too."""


@dataclass(frozen=True, slots=True)
class Semantics:
    """What proofs must know of an adapter's SQL. The defaults prove least."""

    folds_names: Literal["all", "lower", "upper"]
    """The case of names: `all` ignores it, also in quotes; `lower` and `upper` are what a name without quotes becomes."""
    keywords: frozenset[str] = lexicon.KEYWORDS
    """Words that are not the name of a column unless they are quoted."""
    compares_exactly: bool = False
    """Whether `=` of equal types is the equality of GROUP BY, for integers, decimals, dates, times and booleans."""
    compares_text_exactly: bool = False
    """The same for text, where the reported type of a column shows a collation that is not the default."""
    groups_as_it_compares: bool = False
    """The same for each type, where a column is compared with itself; no value but NULL differs from itself."""
    partitions_as_it_groups: bool = False
    """Whether PARTITION BY and GROUP BY ALL have the equality of GROUP BY for each type."""
    fails_loudly: bool = False
    """Whether a cast, an arithmetic operation or a function that cannot give a value is an error, not NULL."""
    fails_on_division_by_zero: bool = False
    keeps_types: bool = False
    """Whether a table made from a query has the types of the query's columns."""
    has_composites: bool = False
    """Whether IS NULL is TRUE of a row whose fields are all NULL, and IS NOT NULL is FALSE of one with any NULL."""
    groups_any_type: bool = False
    """Whether GROUP BY and `=` work on each type."""
    types_literals_by_column: bool = False
    """Whether a text literal that is compared with a column is read as a value of the column's type."""
    sees_sources_to_the_left: bool = True
    """Whether a subquery in FROM can read the sources to its left without LATERAL."""
    groups_by_position: bool = False
    """Whether `GROUP BY 1` means the first column of the result."""
    enforces: frozenset[str] = frozenset()
    """The kinds of dbt's constraints that the database enforces, by the equality of GROUP BY."""
    hidden_collations: str = ""
    """A query that gives 0 if no column can have a collation that its type does not show; empty where there is no such query."""


# Held by execution in tests/sql/proofs.
_POSTGRES = Semantics(
    "lower",
    keywords=lexicon.POSTGRES_KEYWORDS,
    compares_exactly=True,
    compares_text_exactly=True,
    groups_as_it_compares=True,
    partitions_as_it_groups=True,
    fails_loudly=True,
    fails_on_division_by_zero=True,
    keeps_types=True,
    has_composites=True,
    types_literals_by_column=True,
    sees_sources_to_the_left=False,
    groups_by_position=True,
    enforces=frozenset({"not_null", "primary_key", "unique"}),
    # Only under these can two different texts be equal.
    hidden_collations=(
        "select count(*) from pg_attribute a join pg_collation c on c.oid = a.attcollation where not c.collisdeterministic"
    ),
)
# DuckDB's PARTITION BY and GROUP BY ALL ignore the collation of a column, as its unique indexes do.
_DUCKDB = replace(
    _POSTGRES,
    folds_names="all",
    keywords=lexicon.DUCKDB_KEYWORDS,
    partitions_as_it_groups=False,
    has_composites=False,
    groups_any_type=True,
    enforces=frozenset({"not_null"}),
    fails_on_division_by_zero=False,
    sees_sources_to_the_left=True,
    # A table that is made from a query inherits the collations of the query's columns. A view of DuckDB itself has a column
    # `default_collate_name`, so only the whole word counts.
    hidden_collations=(
        "select (select count(*) from (select sql from duckdb_tables() union all select sql from duckdb_views())"
        " where regexp_matches(sql, '\\bcollate\\b', 'i'))"
        " + (select count(*) from duckdb_settings() where name = 'default_collation' and value <> '')"
    ),
)
# For these databases, only what their documentation states plainly. Their columns can have collations that no type shows.
_REDSHIFT = Semantics("lower", compares_exactly=True, keeps_types=True, groups_by_position=True)
_SNOWFLAKE = replace(_REDSHIFT, folds_names="upper")
_ANY_CASE = replace(_REDSHIFT, folds_names="all")
# A padded text in the query becomes a text in the table.
_SPARK = replace(_ANY_CASE, keeps_types=False)


@dataclass(frozen=True, slots=True)
class DistinctCounts:
    """How `count(distinct …)` may stand for GROUP BY in a database whose notion of equal values is tested."""

    pairs: tuple[tuple[str, str], ...] = ()
    """Pairs of strings: each collation that GROUP BY respects and `count(distinct …)` ignores makes some pair equal."""
    has_rows: bool = False
    """Whether counting distinct rows of several columns is as fast as GROUP BY."""


@dataclass(frozen=True, slots=True)
class Peculiarities:
    """What an adapter's SQL reads, or leaves to chance, where that of others does not."""

    samples: tuple[type[exp.Expression], ...] = ()
    """Functions over a random sample."""
    own_columns: frozenset[str] = frozenset()
    """Names of columns to which the database gives a value of its own."""
    reads_in: bool = False
    """Whether `x in y` reads the rows of a relation."""
    takes_any_row: bool = False
    """Whether a column beside aggregates that is not grouped has the value of any row."""
    semi_joins_any_row: bool = False
    """Whether a semi join has columns of the other side, of any matching row."""


@dataclass(frozen=True, slots=True)
class _Sql:
    """The SQL of one adapter."""

    dialect: str
    """sqlglot's name of the dialect."""
    lexicon: Lexicon | None = None
    semantics: Semantics | None = None
    distinct_counts: DistinctCounts | None = None


# DuckDB before 2.0 ignores collations here (duckdb/duckdb#24319). NOCASE, NOACCENT, NFC, and the collations of its extension ICU, which
# all ignore a soft hyphen.
_PAIRS_OF_DUCKDB = (("a", "A"), ("e", "\u00e9"), ("\u00e9", "e\u0301"), ("a", "a\u00ad"))

_SQL: Mapping[str, _Sql] = {
    "athena": _Sql("athena", lexicon.TRINO, _ANY_CASE),
    "bigquery": _Sql("bigquery", lexicon.BIGQUERY, _ANY_CASE),
    "clickhouse": _Sql("clickhouse"),
    "databricks": _Sql("databricks", lexicon.SPARK, _SPARK),
    "dremio": _Sql("dremio"),
    "duckdb": _Sql(DUCKDB, lexicon.DUCKDB, _DUCKDB, DistinctCounts(_PAIRS_OF_DUCKDB, has_rows=True)),
    "fabric": _Sql("tsql", lexicon.TSQL),
    "fabricspark": _Sql("spark"),
    "glue": _Sql("spark", lexicon.SPARK),
    "greenplum": _Sql("postgres"),
    "postgres": _Sql("postgres", lexicon.POSTGRES, _POSTGRES, DistinctCounts()),
    "redshift": _Sql("redshift", lexicon.REDSHIFT, _REDSHIFT),
    "snowflake": _Sql("snowflake", lexicon.SNOWFLAKE, _SNOWFLAKE),
    "spark": _Sql("spark", lexicon.SPARK, _SPARK),
    "sqlite": _Sql("sqlite"),
    "sqlserver": _Sql("tsql", lexicon.TSQL),
    "synapse": _Sql("tsql", lexicon.TSQL),
    "trino": _Sql("trino", lexicon.TRINO, _ANY_CASE),
    "vertica": _Sql("postgres"),
}
_PECULIARITIES: Mapping[str, Peculiarities] = {
    "clickhouse": Peculiarities(samples=(exp.Median, exp.Quantile), reads_in=True, semi_joins_any_row=True),
    "exasol": Peculiarities(own_columns=frozenset({"current_session", "current_statement", "scope_user"})),
    "mysql": Peculiarities(takes_any_row=True),
    "oracle": Peculiarities(own_columns=frozenset({"uid"})),
    "sqlite": Peculiarities(reads_in=True, takes_any_row=True),
    "teradata": Peculiarities(
        own_columns=frozenset({"account", "database", "date", "profile", "role", "session", "time"})
    ),
}
_NOT_PECULIAR = Peculiarities()
PARENTS: Mapping[str, str] = {"databricks": "spark", "redshift": "postgres"}
"""The adapters that use the macros of another one: https://docs.getdbt.com/reference/dbt-jinja-functions/dispatch."""
ADAPTERS = frozenset(_SQL)
"""The adapters in the map. A project may use another one."""
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


def parsed(sql: str, dialect: str | None) -> list[exp.Expr] | None:
    """Return the statements of a text in one of sqlglot's dialects, None where sqlglot cannot parse it.

    >>> parsed("select 1; select 2", None) is not None, parsed("select ???", None) is None
    (True, True)
    """
    try:
        return [tree for tree in sqlglot.parse(sql, dialect=dialect) if tree is not None]
    except Exception:  # noqa: BLE001  # not each error of its parser is one of its own
        return None


@lru_cache
def lexicon_of(adapter: str) -> Lexicon | None:
    """Return the lexicon of an adapter's SQL, None where it is not known: such SQL counts as it is written."""
    return _SQL[adapter].lexicon if adapter in _SQL else None


def peculiarities_of(adapter: str) -> Peculiarities:
    """Return what an adapter's SQL does otherwise than that of others."""
    return _PECULIARITIES.get(adapter, _NOT_PECULIAR)


def semantics_of(adapter: str) -> Semantics | None:
    """Return what proofs may rely on in an adapter's SQL, None where too little is known for any proof."""
    return _SQL[adapter].semantics if adapter in _SQL else None


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
