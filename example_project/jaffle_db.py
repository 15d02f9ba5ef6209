"""Where the example's data lives, and how to reach it for a moment.

DuckDB lets one process at a time write a database file, and keeps every other process out
meanwhile. The loader, the sensors and dbt all share one file here, so whoever opens it opens it
late, closes it early, and waits for its turn.
"""

from __future__ import annotations

import os
import random
import time
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

EXAMPLE_DIR = Path(__file__).resolve().parent
PROJECT_DIR = EXAMPLE_DIR / "jaffle_shop"

Row = tuple[Any, ...]

RATES_TO_USD = {"AUD": 0.65, "CAD": 0.73, "EUR": 1.08, "GBP": 1.27, "JPY": 0.0067}


class WarehouseBusyError(Exception):
    """Say that another process kept the database file for longer than we were willing to wait."""


def warehouse_path() -> Path:
    """Return the database file, resolved as dbt resolves it: relative to the dbt project."""
    return _resolve("JAFFLE_SHOP_DB", "../warehouse/jaffle_shop.duckdb")


def landing_path() -> Path:
    """Return the directory that CSV and Parquet files are dropped into."""
    return _resolve("JAFFLE_SHOP_LANDING", "../warehouse/landing")


def _resolve(variable: str, default: str) -> Path:
    return (PROJECT_DIR / os.environ.get(variable, default)).resolve()


def utc_now() -> datetime:
    """Return the time as the raw tables store it: UTC, without an offset."""
    return datetime.now(timezone.utc).replace(tzinfo=None)


@contextmanager
def connect(
    *, wait_seconds: float = 60, on_wait: Callable[[], None] | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open the warehouse inside one transaction, waiting while another process has it."""
    connection = _open(wait_seconds, on_wait)
    try:
        connection.begin()
        yield connection
        connection.commit()
    finally:
        # Closing without a commit rolls back, so a failure leaves no half-loaded source behind.
        connection.close()


def _open(wait_seconds: float, on_wait: Callable[[], None] | None) -> duckdb.DuckDBPyConnection:
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            return duckdb.connect(str(warehouse_path()))
        except duckdb.Error as error:
            if not _is_busy(error):
                raise
            if time.monotonic() >= deadline:
                message = f"{warehouse_path().name} was in use by another process for {wait_seconds:.0f} seconds"
                raise WarehouseBusyError(message) from error
            if on_wait:
                on_wait()
            time.sleep(0.25)


def _is_busy(error: duckdb.Error) -> bool:
    # The second message is what a connection of dbt in this very process looks like: same file,
    # other settings.
    return any(part in str(error) for part in ("Could not set lock", "different configuration"))


def insert(connection: duckdb.DuckDBPyConnection, table: str, rows: Sequence[Row]) -> None:
    """Insert rows in one statement; `executemany` would hold the file a hundred times longer."""
    if not rows:
        return
    columns = [list(values) for values in zip(*rows, strict=True)]
    placeholders = ", ".join("unnest(?)" for _ in columns)
    connection.execute(f"insert into {table} select {placeholders}", columns)


def exchange_rate_rows(quoted_at: datetime) -> list[Row]:
    """Return one rate per currency, equal for equal times, a few percent around a fixed level."""
    rng = random.Random(f"fx {quoted_at:%Y-%m-%d %H:%M}")  # noqa: S311  # repeatable test data, not a secret
    return [(currency, round(rate * rng.uniform(0.97, 1.03), 6), quoted_at) for currency, rate in RATES_TO_USD.items()]


def append_exchange_rates(connection: duckdb.DuckDBPyConnection, quoted_at: datetime, *, days: int = 1) -> int:
    """Append the rates of this time, and of the same time on the days before; return the row count."""
    moments = [quoted_at - timedelta(days=day) for day in reversed(range(days))]
    rows = [row for moment in moments for row in exchange_rate_rows(moment)]
    insert(connection, "raw_fx.exchange_rates", rows)
    return len(rows)
