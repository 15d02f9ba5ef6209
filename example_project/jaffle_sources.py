"""One class per kind of source, all with the same four verbs: append, update, delete, count.

What a source's own system never does (delete a store, revise a published rate) is refused rather
than faked.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Protocol

import jaffle_db
import jaffle_files
from jaffle_rows import LOAD_LOG, TABLES, Batch, RawTable

if TYPE_CHECKING:
    from pathlib import Path

    import duckdb


class NotSupportedError(Exception):
    """Say that a source's system never does what was asked."""


class Source(Protocol):
    """Name what the loader can do with one source; each method returns how many rows it touched."""

    @property
    def initial_rows(self) -> int: ...  # noqa: D102
    def append(self, db: duckdb.DuckDBPyConnection, batch: Batch) -> int: ...  # noqa: D102
    def update(self, db: duckdb.DuckDBPyConnection, rows: int, now: datetime) -> int: ...  # noqa: D102
    def delete(self, db: duckdb.DuckDBPyConnection, rows: int, now: datetime) -> int: ...  # noqa: D102
    def count(self, db: duckdb.DuckDBPyConnection) -> int: ...  # noqa: D102


@dataclass(frozen=True)
class DatabaseTable:
    """Load one table of the warehouse."""

    table: RawTable

    @property
    def initial_rows(self) -> int:
        """Return how many rows `init` makes."""
        return self.table.initial_rows

    def append(self, db: duckdb.DuckDBPyConnection, batch: Batch) -> int:
        """Add new rows."""
        rows = self.table.generate(db, batch)
        jaffle_db.insert(db, self.table.name, rows)
        return self._log(db, len(rows), batch.end)

    def update(self, db: duckdb.DuckDBPyConnection, rows: int, now: datetime) -> int:
        """Change the newest rows in place."""
        if self.table.update_set is None:
            raise NotSupportedError
        newest = self._newest(rows, "true")
        statement = f"update {self.table.name} set {self.table.update_set} where id in ({newest})"  # noqa: S608
        return self._log(db, self._execute(db, statement, now), now)

    def delete(self, db: duckdb.DuckDBPyConnection, rows: int, now: datetime) -> int:
        """Remove the newest rows that nothing else refers to, or these and their children."""
        if self.table.delete_where is None:
            raise NotSupportedError
        db.execute(f"create temp table doomed as {self._newest(rows, self.table.delete_where)}")
        for statement in self.table.cascade:
            self._execute(db, statement, now)
        deleted = self._execute(db, f"delete from {self.table.name} where id in (from doomed)", now)  # noqa: S608
        db.execute("drop table doomed")
        return self._log(db, deleted, now)

    def count(self, db: duckdb.DuckDBPyConnection) -> int:
        """Return how many rows there are."""
        return _scalar(db, f"select count(*) from {self.table.name}")  # noqa: S608

    def _newest(self, rows: int, condition: str) -> str:
        table = self.table
        return f"select id from {table.name} where {condition} order by {table.newest} desc, id desc limit {rows}"  # noqa: S608

    @staticmethod
    def _execute(db: duckdb.DuckDBPyConnection, statement: str, now: datetime) -> int:
        # DuckDB refuses parameters that the statement does not use.
        row = db.execute(statement, {"now": now} if "$now" in statement else None).fetchone()
        return int(row[0]) if row else 0

    def _log(self, db: duckdb.DuckDBPyConnection, rows: int, now: datetime) -> int:
        if self.table.logged and rows:
            jaffle_db.insert(db, LOAD_LOG, [(self.table.name.partition(".")[2], rows, now)])
        return rows


class Supplies:
    """Load the suppliers' CSV price list."""

    initial_rows = 30

    def append(self, db: duckdb.DuckDBPyConnection, batch: Batch) -> int:
        """Add lines."""
        existing = jaffle_files.read_supplies() if jaffle_files.supplies_path().exists() else []
        products = _column(db, "select id from raw_shop.products order by id")
        first = max((int(row[0]) for row in existing), default=0) + 1
        new = jaffle_files.make_supplies(first, products, batch)
        jaffle_files.write_supplies([*existing, *new])
        return len(new)

    def update(self, _db: duckdb.DuckDBPyConnection, rows: int, _now: datetime) -> int:
        """Raise the price of the last lines."""
        existing = jaffle_files.read_supplies()
        kept, changed = existing[:-rows], existing[-rows:]
        cost = jaffle_files.SUPPLY_COLUMNS.index("cost_cents")
        dearer = [(*row[:cost], int(row[cost]) + 5, *row[cost + 1 :]) for row in changed]
        jaffle_files.write_supplies([*kept, *dearer])
        return len(dearer)

    def delete(self, _db: duckdb.DuckDBPyConnection, rows: int, _now: datetime) -> int:
        """Remove the last lines."""
        existing = jaffle_files.read_supplies()
        jaffle_files.write_supplies(existing[:-rows])
        return min(rows, len(existing))

    def count(self, _db: duckdb.DuckDBPyConnection) -> int:
        """Return how many lines there are."""
        return len(jaffle_files.read_supplies())


class WebSessions:
    """Load the web shop's Parquet files."""

    initial_rows = 250

    def append(self, db: duckdb.DuckDBPyConnection, batch: Batch) -> int:
        """Land one more file."""
        customers = _column(db, "select id from raw_shop.customers order by id")
        rows = jaffle_files.make_sessions(jaffle_files.last_session_id() + 1, customers, batch)
        jaffle_files.write_sessions(jaffle_files.next_session_path(), rows)
        return len(rows)

    def update(self, _db: duckdb.DuckDBPyConnection, rows: int, _now: datetime) -> int:
        """Correct the page counts of the newest sessions in the newest file."""
        path, existing = self._newest_file()
        kept, changed = existing[:-rows], existing[-rows:]
        pages = 3
        corrected = [(*row[:pages], row[pages] + 1, *row[pages + 1 :]) for row in changed]
        jaffle_files.write_sessions(path, [*kept, *corrected])
        return len(corrected)

    def delete(self, _db: duckdb.DuckDBPyConnection, rows: int, _now: datetime) -> int:
        """Remove the newest sessions of the newest file, and the file when empty and not the only one."""
        path, existing = self._newest_file()
        kept = existing[:-rows]
        if kept or len(jaffle_files.session_paths()) == 1:
            jaffle_files.write_sessions(path, kept)
        else:
            path.unlink()
        return len(existing) - len(kept)

    def count(self, _db: duckdb.DuckDBPyConnection) -> int:
        """Return how many sessions there are."""
        return jaffle_files.count_sessions()

    def _newest_file(self) -> tuple[Path, list[jaffle_db.Row]]:
        path = jaffle_files.session_paths()[-1]
        return path, jaffle_files.read_sessions(path)


class ExchangeRates:
    """Load exchange rates by hand. While Dagster runs, its asset `fx/exchange_rates` does it."""

    initial_rows = 0

    def append(self, db: duckdb.DuckDBPyConnection, batch: Batch) -> int:
        """Add the rates of a third of the days in the batch, at least those of its end.

        The number of currencies says how many rows that makes; the batch does not.
        """
        days = max(1, (batch.end - batch.start) // timedelta(days=3))
        return jaffle_db.append_exchange_rates(db, batch.end, days=days)

    def update(self, _db: duckdb.DuckDBPyConnection, _rows: int, _now: datetime) -> int:
        """Refuse: a published rate stays."""
        raise NotSupportedError

    def delete(self, _db: duckdb.DuckDBPyConnection, _rows: int, _now: datetime) -> int:
        """Refuse: a published rate stays."""
        raise NotSupportedError

    def count(self, db: duckdb.DuckDBPyConnection) -> int:
        """Return how many rates there are."""
        return _scalar(db, "select count(*) from raw_fx.exchange_rates")


# In the order that `init` needs: a row's parents come before it.
SOURCES: dict[str, Source] = {
    **{name: DatabaseTable(table) for name, table in TABLES.items()},
    "supplies": Supplies(),
    "web_sessions": WebSessions(),
    "exchange_rates": ExchangeRates(),
}


def _scalar(db: duckdb.DuckDBPyConnection, query: str) -> int:
    return _column(db, query)[0]


def _column(db: duckdb.DuckDBPyConnection, query: str) -> list[int]:
    return [row[0] for row in db.execute(query).fetchall()]
