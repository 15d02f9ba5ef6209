"""This package's own tables in the database of the Dagster instance, for state that runs share or that outlives them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import dagster as dg
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from dagster_sao.core.errors import DagsterSaoError
from dagster_sao.orchestration.messages import one_line
from dagster_sao.orchestration.private.dagster_internals import database_engine

_ATTEMPTS = 8
_FIRST_PAUSE_SECONDS = 0.02
# Workers on several machines must agree on the time, so they read the database's clock.
NOW = {
    "sqlite": "select (julianday('now') - 2440587.5) * 86400.0",
    "postgresql": "select extract(epoch from clock_timestamp())",
    "mysql": "select unix_timestamp(now(6))",
}
# Databases limit the parameters of a statement; SQLite's limit was 999 once.
_ROWS_PER_STATEMENT = 200

T = TypeVar("T")


class TableError(DagsterSaoError):
    """A table of this package cannot be used."""


def find_table(instance: dg.DagsterInstance, table: sa.Table) -> sa.Engine | None:
    """Return the database of an instance when it has the table, None when no run has created it yet."""
    engine = database_engine(instance)
    if engine is None or engine.dialect.name not in NOW:
        return None
    return engine if sa.inspect(engine).has_table(table.name) else None


def open_table(
    instance: dg.DagsterInstance, table: sa.Table, error: type[TableError], *, keeps_open: bool = False
) -> sa.Engine:
    """Return the database of an instance, after creating the table where it is missing.

    With `keeps_open`, an SQLite file stays open between transactions, until `dispose` is called. Raises `error` when there is
    no database, or the table cannot be created.
    """
    engine = database_engine(instance, keeps_open=keeps_open)
    if engine is None or engine.dialect.name not in NOW:
        msg = (
            "This Dagster instance keeps its runs in no database of its own (SQLite, PostgreSQL or MySQL), so two runs could"
            " build one model at once. Use one of these storages."
        )
        raise error(msg)
    try:
        if not sa.inspect(engine).has_table(table.name):
            _create(engine, table)
    except SQLAlchemyError as problem:
        msg = (
            f"The table {table.name} cannot be created in the Dagster instance's database: {reason_of(problem)}."
            " Let its role create tables, or create it once with a role that may."
        )
        raise error(msg) from None
    return engine


def in_parts(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield values in parts that are small enough for one statement."""
    for first in range(0, len(values), _ROWS_PER_STATEMENT):
        yield values[first : first + _ROWS_PER_STATEMENT]


def replace_rows(
    connection: sa.Connection, table: sa.Table, key: sa.Column[str], rows: Sequence[Mapping[str, Any]]
) -> None:
    """Write rows in the place of those with the same keys. A key may occur once."""
    for part in in_parts(rows):
        connection.execute(sa.delete(table).where(key.in_([row[key.name] for row in part])))
        connection.execute(sa.insert(table), list(part))


def retried(action: Callable[[], T], failed: str, error: type[TableError]) -> T:
    """Return the result of `action`, retried when two transactions collide or the database is away for a moment.

    Raises `error` with the sentence `failed` and the database's reason when all retries fail.
    """
    for attempt in range(_ATTEMPTS):
        try:
            return action()
        except DBAPIError as problem:
            if attempt == _ATTEMPTS - 1:
                msg = f"{failed} in the Dagster instance's database: {reason_of(problem)}"
                raise error(msg) from None
            time.sleep(_FIRST_PAUSE_SECONDS * 2**attempt)
    raise AssertionError


def reason_of(error: SQLAlchemyError) -> str:
    """Return the driver's own message as one line, without the statement and parameters that SQLAlchemy adds."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return one_line(str(cause)).rstrip(".")


def _create(engine: sa.Engine, table: sa.Table) -> None:
    try:
        table.create(engine, checkfirst=True)
    except SQLAlchemyError:
        # Another process may have created it at the same moment.
        if not sa.inspect(engine).has_table(table.name):
            raise
