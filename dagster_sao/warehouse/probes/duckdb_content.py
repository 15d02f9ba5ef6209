"""DuckDB tables without `loaded_at_*`: DuckDB keeps no modification time, so the token is a hash of the rows.

Hashing costs a scan, so it is done only when the database file moved. The stat of the file and its write-ahead log
never missed a commit in our measurements, and it takes no lock.
"""

# ruff: noqa: S608  # names from the manifest and the catalog, quoted, in a read-only connection

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from dagster_sao.core.manifest.graph import Source
from dagster_sao.warehouse.errors import StatementError
from dagster_sao.warehouse.probes.base import Observation, ProbeKind
from dagster_sao.warehouse.probes.settings import does_not_exist, place, relation_sql, settings_of
from dagster_sao.warehouse.probes.untracked import untracked_view
from dagster_sao.warehouse.queries.duckdb_hash import PLAIN_TYPE, ROW, rows_hash, shows_time_zone
from dagster_sao.warehouse.queries.union import Arm, UnionRunner
from dagster_sao.warehouse.relations.file_stat import SETTLED_AFTER_NS, FileStat, stat_files
from dagster_sao.warehouse.relations.names import literal
from dagster_sao.warehouse.session import WarehouseSession
from dbt_dagster_sao.database_file import COMPANIONS, database_state

_SECOND_NS = 1_000_000_000
_TICK_SECONDS = 0.005

_Name = tuple[str, str, str]
_Stat = tuple[FileStat, ...]


@dataclass(frozen=True, slots=True)
class _Proven:
    stat: _Stat
    relation: str
    observation: Observation


@dataclass(frozen=True, slots=True)
class _Relation:
    signature: str
    """A hash of its columns: names, types and order, and of a table its whole definition, collations too."""
    special: tuple[tuple[str, str], ...]
    """Name and type of the columns that DuckDB's hash of a row does not cover."""


@dataclass(frozen=True, slots=True)
class _Catalog:
    relations: dict[_Name, _Relation]
    views: frozenset[_Name] = frozenset()
    main: frozenset[str] = field(default_factory=frozenset)
    """The databases in the main file: one name or none."""


class DuckDBContentProbe:
    """Hash the rows of tables, but only when the database file has moved."""

    kind = ProbeKind.DUCKDB

    def __init__(self, session: WarehouseSession, now_ns: Callable[[], int]) -> None:
        self._session = session
        self._now_ns = now_ns
        self._runner = UnionRunner(session)
        self._runner_in_utc = UnionRunner(session, prepare=self._use_utc)
        self._proven: dict[str, _Proven] = {}

    def claims(self, source: Source) -> bool:
        """Return whether the source is in a DuckDB database, but not on MotherDuck, where each scan is paid for."""
        settings = settings_of(source)
        is_local = self._session.adapter_type == "duckdb" and not self._session.is_motherduck
        return is_local and not settings.is_external and not settings.plugin

    def observe(self, sources: Sequence[Source], expired: Callable[[], bool]) -> Iterator[tuple[str, Observation]]:
        """Yield each source's content token. Raises WarehouseError and WarehouseBusyError."""
        before, settled = database_stat(self._session, self._now_ns())
        moved = []
        for source in sources:
            proven = self._proven.get(source.unique_id)
            if proven and before and proven.stat == before and proven.relation == relation_sql(source):
                yield source.unique_id, proven.observation
            else:
                moved.append(source)
        if not moved or expired():
            return
        catalog = self._read_catalog(moved)
        for source, observation in self._look(moved, catalog, expired):
            uid = source.unique_id
            self._proven.pop(uid, None)
            # The stat is from before the look: if a later one equals it, nothing was written since, also not meanwhile.
            # Views and attached databases read other files, which it does not cover; that a name is a view, or
            # missing, is however written in the main file.
            if settled and self._name(source)[0] in catalog.main:
                self._proven[uid] = _Proven(before, relation_sql(source), observation)
            yield uid, observation

    def _look(
        self, sources: Sequence[Source], catalog: _Catalog, expired: Callable[[], bool]
    ) -> Iterator[tuple[Source, Observation]]:
        tables = {}
        for source in sources:
            name = self._name(source)
            if name in catalog.views:
                yield source, untracked_view(source)
            elif name not in catalog.relations:
                yield source, Observation(None, ProbeKind.DUCKDB, error=does_not_exist(source))
            else:
                tables[source.unique_id] = source
        of = {uid: catalog.relations[self._name(source)] for uid, source in tables.items()}
        arms = [
            Arm(
                uid,
                self._name(source)[0],
                rows_hash(of[uid].special),
                f"from {relation_sql(source)} as {ROW}",
            )
            for uid, source in tables.items()
        ]
        shows_zone = any(shows_time_zone(kind) for relation in of.values() for _, kind in relation.special)
        runner = self._runner_in_utc if shows_zone else self._runner
        for arm, answer in runner.run(arms, expired):
            source = tables[arm.unique_id]
            if isinstance(answer, StatementError):
                sentence = (
                    f"{place(source)} cannot be read: {answer}. Repair the table, or give the source a loaded_at_field"
                )
                yield source, Observation(None, ProbeKind.DUCKDB, error=sentence)
            else:
                yield source, Observation(f"{answer}-{of[arm.unique_id].signature}", ProbeKind.DUCKDB)

    def _read_catalog(self, sources: Sequence[Source]) -> _Catalog:
        # Only the databases asked for: an attached PostgreSQL would list all of its tables.
        wanted = sorted({self._name(source)[0] for source in sources})
        within = "not internal and lower(database_name) in ({})".format(", ".join(map(literal, wanted)))
        names = "lower(database_name), lower(schema_name), lower({})"
        column = "'\"' || replace(column_name, '\"', '\"\"') || '\" ' || data_type"
        is_special = f"not regexp_full_match(data_type, '{PLAIN_TYPE}', 's')"
        with self._session.connection():
            columns = self._session.execute(
                f"select {names.format('table_name')}, string_agg({column}, ',' order by column_index),"
                f" list([column_name, data_type] order by column_index) filter ({is_special})"
                f" from duckdb_columns() where {within} group by all"
            )
            tables = self._session.execute(
                f"select {names.format('table_name')}, sql from duckdb_tables() where {within}"
            )
            views = self._session.execute(f"select {names.format('view_name')} from duckdb_views() where {within}")
            databases = self._session.execute("select lower(database_name), path from duckdb_databases()")
        texts = {(database, schema, name): sql or "" for database, schema, name, sql in tables}
        return _Catalog(
            relations={
                (database, schema, name): _Relation(
                    hashlib.md5(
                        f"{listed}\n{texts.get((database, schema, name), '')}".encode(), usedforsecurity=False
                    ).hexdigest(),
                    tuple((column, kind) for column, kind in special or ()),
                )
                for database, schema, name, listed, special in columns
            },
            views=frozenset((database, schema, name) for database, schema, name in views),
            main=frozenset(name for name, path in databases if path and Path(path) == self._session.duckdb_file),
        )

    def _use_utc(self) -> None:
        # Without the extension for time zones there is no such setting, and all times are in UTC.
        with suppress(StatementError):
            self._session.execute("set TimeZone = 'UTC'")

    def _name(self, source: Source) -> _Name:
        database = source.database or self._session.database
        return database.lower(), (source.schema or "main").lower(), (source.identifier or source.name).lower()


def database_stat(session: WarehouseSession, now_ns: int) -> tuple[tuple[FileStat, ...], bool]:
    """Return the stat of the main file's database, and whether every later write would change it.

    Nothing, and False, where the target is not a local DuckDB.
    """
    return stat_databases([session.duckdb_file] if session.duckdb_file is not None else [], now_ns)


def stat_databases(files: Iterable[Path], now_ns: int) -> tuple[tuple[FileStat, ...], bool]:
    """Return the stat of the databases in files, and whether every later write would change it."""
    found = stat_files(f"{file}{companion}" for file in files for companion in COMPANIONS)
    return found, bool(found) and all(entry.is_settled(now_ns) for entry in found)


def settled_state(file: Path) -> str:
    """Return a state of a database file that any later write changes; empty where it cannot be read in time.

    The file has real times, so this uses the real clock too.
    """
    deadline = time.monotonic() + SETTLED_AFTER_NS / _SECOND_NS
    while True:
        now_ns = time.time_ns()
        state = database_state(file)
        found = stat_files(f"{file}{companion}" for companion in COMPANIONS)
        if found and all(entry.is_settled_for_its_clock(now_ns) for entry in found):
            return state
        if not found or time.monotonic() >= deadline:
            return ""
        time.sleep(_TICK_SECONDS)
