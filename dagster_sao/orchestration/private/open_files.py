"""SQLite files of Dagster's event log that stay open while a run writes to them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy as sa
from sqlalchemy.pool import StaticPool

from dagster_sao.orchestration.private.dagster_internals import SqliteEventLogStorage

_INDEX = "index"
"""The name of the file across runs."""
_BUSY_SECONDS = 30.0
"""How long a write waits for the writes of others, as long as Dagster's own."""


@contextmanager
def kept_open(instance: dg.DagsterInstance, run_id: str) -> Iterator[None]:
    """Keep the files of a run's events open while the block runs, where the instance has them on SQLite.

    Dagster opens a file anew for each query and each event, several times for some. That takes longer than the query or event
    itself: SQLite reads the schema, SQLAlchemy prepares each statement again. Each transaction stays as it is.
    """
    storage = instance.event_log_storage
    # Another run in this process may have them open.
    if not isinstance(storage, SqliteEventLogStorage) or "_connect" in vars(storage):
        yield
        return
    files = _OpenFiles(storage, {run_id, _INDEX})
    storage._connect = files.connect  # type: ignore[method-assign]
    storage.has_table = files.has_table  # type: ignore[method-assign]
    try:
        yield
    finally:
        del storage._connect, storage.has_table
        files.close()


class _OpenFiles:
    def __init__(self, storage: SqliteEventLogStorage, shards: set[str]) -> None:
        self._storage, self._shards = storage, shards
        self._connect, self._has_table = storage._connect, storage.has_table
        self._tables: set[str] = set()
        self._engines: dict[str, tuple[sa.Engine, tuple[int, int]]] = {}

    @contextmanager
    def connect(self, shard: str) -> Iterator[sa.Connection]:
        """Yield a connection in a transaction, as Dagster's own method does, which also creates a file that is not there yet."""
        file = _identity(self._storage.path_for_shard(shard)) if shard in self._shards else None
        if file is None or shard not in self._storage._initialized_dbs:
            with self._connect(shard) as connection:
                yield connection
            return
        with self._storage._db_lock, self._engine(shard, file).begin() as connection:
            yield connection

    def has_table(self, table_name: str) -> bool:
        """Return whether the file across runs has a table. Dagster asks that for each event with tags and for each check."""
        if table_name not in self._tables and self._has_table(table_name):
            self._tables.add(table_name)  # Dagster never drops one
        return table_name in self._tables

    def close(self) -> None:
        """Close the files."""
        with self._storage._db_lock:
            for engine, _ in self._engines.values():
                engine.dispose()
            self._engines.clear()

    def _engine(self, shard: str, file: tuple[int, int]) -> sa.Engine:
        engine, opened = self._engines.get(shard, (None, None))
        if engine is not None and opened != file:
            engine.dispose()  # somebody has replaced the file
            engine = None
        if engine is None:
            # Under Dagster's lock one thread at a time uses the connection, but not always the same one.
            arguments: dict[str, Any] = {"timeout": _BUSY_SECONDS, "check_same_thread": False}
            url = self._storage.conn_string_for_shard(shard)
            engine = sa.create_engine(url, poolclass=StaticPool, connect_args=arguments)
            self._engines[shard] = engine, file
        return engine


def _identity(path: str) -> tuple[int, int] | None:
    try:
        stat = Path(path).stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino
