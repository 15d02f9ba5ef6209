"""Everything that is special about a database, as one value for each dbt adapter.

No other module compares an adapter's name. The defaults are the traits of an unknown adapter: they never miss a change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from importlib.metadata import PackageNotFoundError, version

from dagster_sao.core.manifest.relation_traits import RelationTraits

# A tick starts its last statement after 40 s at the latest, and Dagster ends the tick after 60 s.
STATEMENT_TIMEOUT_SECONDS = 15
"""How long a statement on PostgreSQL may take."""
# A swap of two tables holds its lock for an instant; a long rewrite of one must not use up the tick.
LOCK_TIMEOUT_SECONDS = 2
"""How long a statement on PostgreSQL may wait for a lock."""
# From this version on DuckDB binds a view again whenever it is read; before, it fails when the columns have changed.
_DUCKDB_BINDS_LATE = 2


class Folding(Enum):
    """The case in which a database keeps a name that is written without quotes."""

    LOWER = auto()
    UPPER = auto()
    NONE = auto()


class Catalog(Enum):
    """The catalog that lists relations."""

    DBT = auto()
    """The adapter's own listing, schema by schema, without columns. Every adapter has one."""
    DUCKDB = auto()
    POSTGRES = auto()
    SNOWFLAKE = auto()


@dataclass(frozen=True, slots=True)
class NameTraits:
    """How a database keeps and compares names."""

    folding: Folding = Folding.LOWER
    ignores_case: bool = False
    """Whether names that differ only in case, quoted or not, are the same name."""
    longest: int | None = None
    """The bytes after which the database cuts a name."""


@dataclass(frozen=True, slots=True)
class TimeTraits:
    """What an adapter's last-modified times of tables prove, according to its macro `get_relation_last_modified`."""

    are_sound: bool = False
    """Whether the time moves with every change of the rows."""
    flaw: str = ""
    """The changes that the time misses, as a clause; empty where they are not known."""
    sound_if: str = ""
    """A method of dbt's adapter. Where it returns true, dbt reads the times from another place, and they are sound."""
    moves_for_wildcards: bool = False
    """Whether the time of a wildcard table such as `events_*` is always now."""
    is_asked_by_schema: bool = False
    """Whether one statement can ask for the tables of one schema only."""
    batch_flag: str = ""
    """A behavior flag of dbt. Without it dbt asks for one table after the other, and one missing table fails all."""


@dataclass(frozen=True, slots=True)
class AdapterTraits:
    """Everything that is special about one database."""

    relations: RelationTraits = field(default_factory=RelationTraits)
    names: NameTraits = field(default_factory=NameTraits)
    times: TimeTraits = field(default_factory=TimeTraits)
    catalog: Catalog = Catalog.DBT
    is_embedded: bool = False
    """Whether the database runs in the process that opens it, and its file has either one writer or many readers."""
    is_read_only_by_transaction: bool = False
    """Whether a connection is made read only through its transactions."""
    keeps_relations: bool = True
    """Whether the server keeps the relations itself. An engine over a catalog elsewhere shows the same ones from any host."""
    has_counters: bool = False
    """Whether the database counts the rows that are written to each table, and shows them some time after the commit."""
    sizes_seed_columns: bool = True
    """Whether dbt may size a seed's column by its longest value, in length or precision."""
    as_text: str = "cast({value} as {type})"
    """The SQL of a timestamp's text with all its digits. `{type}` is what the adapter calls its unbounded text type."""
    from_nothing: str = ""
    """What follows a SELECT that reads no relation."""
    preamble: str = ""
    """The first statement on every connection: a query may call a function that writes, and timestamps must be exact in text,
    whatever the role's settings."""

    session_settings: frozenset[str] = frozenset(
        {"role", "search_path", "server_side_parameters", "session_properties", "settings", "timezone"}
    )
    """The entries of a target in profiles.yml that may change what SQL gives, beside where its relations are."""

    @property
    def lists_columns(self) -> bool:
        """Whether the listing of relations has their columns."""
        return self.catalog is not Catalog.DBT


def traits_of(adapter_type: str) -> AdapterTraits:
    """Return the traits of an adapter; for DuckDB, of the installed version."""
    return _TRAITS.get(adapter_type, _UNKNOWN)


def _duckdb_binds_late() -> bool:
    try:
        return int(version("duckdb").partition(".")[0]) >= _DUCKDB_BINDS_LATE
    except (PackageNotFoundError, ValueError):
        return False


_UNKNOWN = AdapterTraits()
_IGNORES_CASE = NameTraits(ignores_case=True)
# By CAST, a `datetime` becomes `Jan  1 2026 12:00AM`.
_TSQL_TEXT = "convert({type}, {value}, 121)"
# dbt's name of the text type is not one that CAST knows.
_MYSQL = AdapterTraits(as_text="cast({value} as char)")
_TRAITS: Mapping[str, AdapterTraits] = {
    "athena": AdapterTraits(names=_IGNORES_CASE, keeps_relations=False),
    "bigquery": AdapterTraits(
        names=NameTraits(Folding.NONE),
        times=TimeTraits(
            are_sound=True,
            moves_for_wildcards=True,
            # BigQuery looks in the region of the first table only.
            is_asked_by_schema=True,
            batch_flag="bigquery_use_batch_source_freshness",
        ),
        sizes_seed_columns=False,
    ),
    "clickhouse": AdapterTraits(
        # dbt alters or replaces it. A full refresh would lose the rows of the past.
        relations=RelationTraits(gets_new_sql=frozenset({"materialized_view"})),
    ),
    "databricks": AdapterTraits(names=_IGNORES_CASE, times=TimeTraits(are_sound=True), sizes_seed_columns=False),
    "duckdb": AdapterTraits(
        relations=RelationTraits(binds_views=not _duckdb_binds_late()),
        names=_IGNORES_CASE,
        catalog=Catalog.DUCKDB,
        is_embedded=True,
        session_settings=frozenset({"attach", "config_options", "external_root", "plugins", "settings"}),
        sizes_seed_columns=False,
    ),
    "fabric": AdapterTraits(
        names=_IGNORES_CASE,
        as_text=_TSQL_TEXT,
        times=TimeTraits(
            flaw="the time that dbt reads from fabric is the time of the last DDL, which misses inserts, updates and deletes",
        ),
    ),
    "mariadb": _MYSQL,
    "mysql": _MYSQL,
    "mysql5": _MYSQL,
    "oracle": AdapterTraits(
        names=NameTraits(Folding.UPPER),
        from_nothing="from dual",
        # By default, the text of a date has no time of day.
        preamble=(
            "alter session set nls_date_format = 'YYYY-MM-DD HH24:MI:SS'"
            " nls_timestamp_format = 'YYYY-MM-DD HH24:MI:SS.FF9'"
            " nls_timestamp_tz_format = 'YYYY-MM-DD HH24:MI:SS.FF9 TZH:TZM'"
        ),
    ),
    "postgres": AdapterTraits(
        relations=RelationTraits(drops_dependent_views=True),
        names=NameTraits(longest=63),
        catalog=Catalog.POSTGRES,
        is_read_only_by_transaction=True,
        has_counters=True,
        sizes_seed_columns=False,
        # psycopg2 asks for ISO dates by itself; a zone is part of the text and read from it.
        preamble=(
            "set transaction read only;"
            f" set local statement_timeout = '{STATEMENT_TIMEOUT_SECONDS}s';"
            f" set local lock_timeout = '{LOCK_TIMEOUT_SECONDS}s'"
        ),
    ),
    "redshift": AdapterTraits(
        relations=RelationTraits(drops_dependent_views=True),
        names=_IGNORES_CASE,
        times=TimeTraits(
            flaw="the time that dbt reads from redshift without `datasharing: true` is the time of the last insert,"
            " which misses deletes",
            sound_if="use_show_apis",
            is_asked_by_schema=True,
        ),
        preamble="set datestyle = 'ISO'",
    ),
    "snowflake": AdapterTraits(
        names=NameTraits(Folding.UPPER),
        times=TimeTraits(are_sound=True),
        catalog=Catalog.SNOWFLAKE,
        sizes_seed_columns=False,
        # The default formats of Snowflake end at milliseconds.
        preamble=(
            "alter session set timestamp_ntz_output_format = 'YYYY-MM-DD HH24:MI:SS.FF9',"
            " timestamp_ltz_output_format = 'YYYY-MM-DD HH24:MI:SS.FF9 TZH:TZM',"
            " timestamp_tz_output_format = 'YYYY-MM-DD HH24:MI:SS.FF9 TZH:TZM',"
            " date_output_format = 'YYYY-MM-DD'"
        ),
    ),
    "spark": AdapterTraits(names=_IGNORES_CASE, keeps_relations=False),
    "singlestore": _MYSQL,
    "sqlserver": AdapterTraits(
        names=_IGNORES_CASE,
        as_text=_TSQL_TEXT,
        times=TimeTraits(
            flaw="the time that dbt reads from sqlserver is the time of the last DDL, which misses inserts, updates and deletes",
        ),
    ),
    "synapse": AdapterTraits(names=_IGNORES_CASE, as_text=_TSQL_TEXT),
    "teradata": AdapterTraits(
        times=TimeTraits(
            flaw="the time that dbt reads from teradata is the time of the last ALTER, which misses inserts, updates and deletes",
        ),
    ),
    "trino": AdapterTraits(names=_IGNORES_CASE, keeps_relations=False),
    "vertica": AdapterTraits(
        times=TimeTraits(
            flaw="the time that dbt reads from vertica is the time of its creation, which misses every later change"
        ),
    ),
}
