"""What others load: the sources' rows, in the warehouse and as a copy for the oracle."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb

SOURCES = ("plain", "events", "ledger", "people")
GROUPS = ("a", "b", "c")
BAD_VALUE = "not a number"
BAD_GROUP = "z"
BAD_SIGN = "-10000000"

_TABLES = {
    "plain": "id integer, value varchar, grp varchar",
    "events": "id integer, grp varchar, amount integer, loaded_at timestamp",
    "ledger": "id integer, amount integer, moment integer",
    "loads": "finished_at timestamp",
}
_BESIDE = ("loose", "options")
"""Tables that models read without telling dbt."""
_WIDE = "id integer, items integer[], shape struct(a integer)"
_EXTRA_COLUMN = {"add": ", extra integer", "retype": ", extra varchar", "drop": ""}
Row = tuple[Any, ...]
Content = list[dict[str, Any]] | str


class RawData:
    """The rows of the sources, kept here and written whole: a source is small, and so every write is the same code.

    `events` and `ledger` keep the contract of `loaded_at_*`: each change has a later timestamp, and a restored state
    has the timestamp and the rows that it had.
    """

    def __init__(self, folder: Path) -> None:
        """Create all sources with some rows."""
        self._folder = folder
        self.rows: dict[str, list[Row]] = {}
        self.restored: set[str] = set()
        self._earlier: dict[str, list[list[Row]]] = {}
        self._next_id = 0
        with self._connect() as db:
            db.execute("create schema if not exists raw")
            for table, columns in _TABLES.items():
                db.execute(f"create or replace table raw.{table} ({columns})")
            db.execute("create or replace view raw.window as select * from raw.plain")
            for table in _BESIDE:
                db.execute(f"create or replace table raw.{table} as select 1 as n")
        self._extra_column, self._items, self._shape, self._parts = "", "[]", "null", 0
        self._write_wide()
        for source in SOURCES:
            self.rows[source], self._earlier[source] = [], []
        for source in SOURCES:
            self.insert(source, 3)
            self._earlier[source].clear()

    def insert(self, source: str, count: int) -> None:
        self._remember(source)
        for _ in range(count):
            self._next_id += 1
            self.rows[source].append(self._new_row(source, self._next_id))
        self._write(source)

    def update(self, source: str) -> None:
        """Change one row, if there is one."""
        if self.rows[source]:
            self._remember(source)
            self._next_id += 1
            new = self._new_row(source, self._next_id)
            self.rows[source][0] = (self.rows[source][0][0], *new[1:])
            self._write(source)

    def delete(self, source: str) -> None:
        """Delete one row; of a source with timestamps, go back to the state before the last change."""
        if source in {"events", "ledger"}:
            if self._earlier[source]:
                self.restored.add(source)
                self.rows[source] = self._earlier[source].pop()
                self._write(source)
        elif self.rows[source]:
            self.rows[source].pop()
            self._write(source)

    def rewrite(self, source: str) -> None:
        """Write the same rows again."""
        self._write(source)

    def recreate(self, source: str) -> None:
        """Drop the table and create it with the same rows."""
        if source != "people":
            with self._connect() as db:
                db.execute("drop view raw.window")
                db.execute(f"drop table raw.{source}")
                db.execute(f"create table raw.{source} ({_TABLES[source]})")
                db.execute("create view raw.window as select * from raw.plain")
        self._write(source)

    def spoil_value(self) -> None:
        """Add a row whose value is no number, for the model that casts it to fail."""
        self._next_id += 1
        self.rows["plain"].append((self._next_id, BAD_VALUE, "a"))
        self._write("plain")

    def repair_values(self) -> None:
        self.rows["plain"] = [row for row in self.rows["plain"] if row[1] != BAD_VALUE]
        self._write("plain")

    def duplicate_id(self) -> None:
        """Add a person twice, for the test of severity error to fail."""
        self.rows["people"].extend(self.rows["people"][:1])
        self._write("people")

    def deduplicate(self) -> None:
        self.rows["people"] = list(dict.fromkeys(self.rows["people"]))
        self._write("people")

    def spoil_group(self) -> None:
        """Add a row of an unknown group, for the test on the source to fail."""
        self._next_id += 1
        self.rows["plain"].append((self._next_id, str(self._next_id), BAD_GROUP))
        self._write("plain")

    def repair_groups(self) -> None:
        self.rows["plain"] = [row for row in self.rows["plain"] if row[2] != BAD_GROUP]
        self._write("plain")

    def spoil_sign(self) -> None:
        """Add a row that makes the total of a group negative, for the test of two models to fail."""
        self._next_id += 1
        self.rows["plain"].append((self._next_id, BAD_SIGN, "a"))
        self._write("plain")

    def repair_signs(self) -> None:
        self.rows["plain"] = [row for row in self.rows["plain"] if row[1] != BAD_SIGN]
        self._write("plain")

    def spoil_amount(self) -> None:
        """Add an event without an amount, for the test on the view to fail."""
        self._remember("events")
        self._next_id += 1
        number, grp, _, loaded_at = self._new_row("events", self._next_id)
        self.rows["events"].append((number, grp, None, loaded_at))
        self._write("events")

    def repair_amounts(self) -> None:
        """Correct the events without an amount: as every change of this source, later than all others."""
        if any(row[2] is None for row in self.rows["events"]):
            self._remember("events")
            self._next_id += 1
            loaded_at = self._new_row("events", self._next_id)[3]
            self.rows["events"] = [
                (number, grp, 1, loaded_at) if amount is None else (number, grp, amount, at)
                for number, grp, amount, at in self.rows["events"]
            ]
            self._write("events")

    def blip(self, source: str) -> Callable[[], None]:
        """Add rows. Returns what takes them away again, as if they had never been there."""
        before, earlier = list(self.rows[source]), list(self._earlier[source])
        self.restored.add(source)
        self.insert(source, 2)

        def take_back() -> None:
            self.rows[source], self._earlier[source] = before, earlier
            self._write(source)

        return take_back

    def alter_columns(self, how: str) -> None:
        """Add a column to the source that a view reads with `select *`, give it another type, or drop it."""
        self._extra_column = _EXTRA_COLUMN[how]
        self._write_wide()

    def alter_nested(self, column: str) -> None:
        """Let a nested value become another one that looks much like it."""
        if column == "items":
            self._items = "[null]" if self._items == "[]" else "[]"
        else:
            self._shape = "{'a': null}" if self._shape == "null" else "null"
        self._write_wide()

    def change_beside(self, table: str) -> None:
        """Change a table that models read without telling dbt."""
        with self._connect() as db:
            db.execute(f"update raw.{table} set n = n + 1")

    def change_parts(self) -> None:
        """Create a table, or drop it: the catalog is another one."""
        self._parts = 1 - self._parts
        with self._connect() as db:
            db.execute("create table raw.part_1 (n integer)" if self._parts else "drop table raw.part_1")

    def empty_view(self, name: str) -> bool:
        """Replace a view by one of the same columns without rows. Returns whether there is such a view."""
        with self._connect() as db:
            found = db.execute("select schema_name, sql from duckdb_views() where view_name = ?", [name]).fetchone()
            if found is not None:
                schema, sql = found
                query = sql.partition(" AS ")[2].rstrip(";")
                db.execute(f"create or replace view {schema}.{name} as select * from ({query}) limit 0")
        return found is not None

    def copy_to(self, other: Path) -> None:
        """Create a database with the same sources and nothing else."""
        other.unlink(missing_ok=True)
        other.with_name(other.name + ".wal").unlink(missing_ok=True)
        with duckdb.connect(str(other)) as db:
            db.execute(f"attach '{self._database}' as warehouse (read_only)")
            db.execute("create schema raw")
            for table in (*_TABLES, *_BESIDE, "wide", *(["part_1"] if self._parts else [])):
                db.execute(f"create table raw.{table} as select * from warehouse.raw.{table}")
            db.execute("create view raw.window as select * from raw.plain")

    def _remember(self, source: str) -> None:
        self._earlier[source].append(list(self.rows[source]))

    def _new_row(self, source: str, number: int) -> Row:
        grp = GROUPS[number % len(GROUPS)]
        if source == "plain":
            return number, str(number * 10), grp
        if source == "people":
            return number, f"name{number}", grp
        if source == "ledger":
            return number, number * 7, number
        return number, grp, number * 3, datetime(2024, 1, 1) + timedelta(seconds=number)  # noqa: DTZ001

    def _write(self, source: str) -> None:
        rows = self.rows[source]
        if source == "people":
            lines = ["id,name,grp", *(",".join(map(str, row)) for row in rows)]
            (self._folder / "people.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
            return
        with self._connect() as db:
            db.execute("begin")
            db.execute(f"delete from raw.{source}")
            if rows:
                db.executemany(f"insert into raw.{source} values ({', '.join('?' * len(rows[0]))})", rows)
            if source == "ledger":
                moment = max((row[-1] for row in rows), default=0)
                db.execute("delete from raw.loads")
                db.execute("insert into raw.loads values (timestamp '2024-01-01' + to_seconds(?))", [moment])
            db.execute("commit")

    def _write_wide(self) -> None:
        value = ", 7" if self._extra_column else ""
        with self._connect() as db:
            db.execute("begin")
            db.execute(f"create or replace table raw.wide ({_WIDE}{self._extra_column})")
            db.execute(f"insert into raw.wide values (1, {self._items}, {self._shape}{value})")
            db.execute("commit")

    @property
    def _database(self) -> Path:
        return self._folder / "warehouse.duckdb"

    @contextmanager
    def _connect(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with duckdb.connect(str(self._database)) as db:
            yield db


def read_relations(database: Path, relations: Iterable[str]) -> dict[str, Content]:
    """Return the rows of each relation in a fixed order, or in one word why there are none."""
    with duckdb.connect(str(database), read_only=True) as db:
        return {relation: _read(db, relation) for relation in relations}


def failing_tests(database: Path, truth: Mapping[str, str]) -> set[str]:
    """Return the names of the queries that find any row."""
    with duckdb.connect(str(database), read_only=True) as db:
        return {name for name, query in truth.items() if _finds_any(db, query)}


def _finds_any(db: duckdb.DuckDBPyConnection, query: str) -> bool:
    try:
        return db.execute(f"select 1 from ({query}) limit 1").fetchone() is not None
    except duckdb.Error:
        return False  # its relation is missing or broken


def _read(db: duckdb.DuckDBPyConnection, relation: str) -> Content:
    try:
        cursor = db.execute(f'select * from main."{relation}"')
        names = [column[0] for column in cursor.description or ()]
        rows = [dict(sorted(zip(names, row, strict=True))) for row in cursor.fetchall()]
    except duckdb.CatalogException:
        return "missing"
    except duckdb.Error:
        return "unreadable"
    return sorted(rows, key=repr)
