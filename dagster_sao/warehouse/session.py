"""A private dbt adapter that stays warm: connect, run statements, release. Nothing here knows what a source is."""

# values of a profile or manifest, of any type until they are looked at

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from dagster_sao.core.manifest.graph import Source
from dagster_sao.warehouse.adapters import LOCK_TIMEOUT_SECONDS, STATEMENT_TIMEOUT_SECONDS, AdapterTraits
from dagster_sao.warehouse.dbt_private.adapter import PrivateAdapter
from dagster_sao.warehouse.dbt_private.config import load_config
from dagster_sao.warehouse.errors import (
    StatementError,
    StatementTimeoutError,
    WarehouseBusyError,
    WarehouseError,
    reason,
)
from dagster_sao.warehouse.profiles import cannot_load
from dagster_sao.warehouse.read_only import NotAQueryError
from dagster_sao.warehouse.redaction import learn, masked, secrets_in

# Long enough for another tick to release the file, short enough for a sensor. The next tick waits for a build.
_BUSY_RETRY_SECONDS = (0.1, 0.3, 1.0)

_QUERY_CANCELED, _LOCK_NOT_AVAILABLE, _RAISED_BY_A_FUNCTION = "57014", "55P03", "P0001"

_BUSY = (
    "Could not set lock on file",
    "different configuration than existing connections",
    "being used by another process",
    "already attached by database",
)


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of statements."""

    statements: int = 0
    seconds: float = 0.0
    bytes_processed: int = 0
    """Zero unless the warehouse reports it, as BigQuery does."""

    def since(self, before: Cost) -> Cost:
        """Return the cost since `before`."""
        return Cost(
            self.statements - before.statements,
            self.seconds - before.seconds,
            self.bytes_processed - before.bytes_processed,
        )

    def __str__(self) -> str:
        scanned = f", {self.bytes_processed:,} bytes" if self.bytes_processed else ""
        return f"{self.statements} statement{'' if self.statements == 1 else 's'} in {self.seconds:.2f} s{scanned}"


class _Thread(threading.local):
    """The session's state for one thread."""

    is_connected = False


class WarehouseSession:
    """One warm private dbt adapter for a project and target, never in dbt's global FACTORY.

    Safe to use beside dbt invocations in the same process, and by many threads: each has its own connection inside
    `connection()`, at most `connections` of them at once; the others wait.
    """

    def __init__(
        self,
        adapter: PrivateAdapter,
        project_dir: Path,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._adapter = adapter
        self._sleep = sleep
        self._closed = False
        self._cost, self._cost_lock = Cost(), threading.Lock()
        self.project_dir = project_dir
        # DuckDB runs one statement on all cores; more connections would only keep its file locked for longer.
        self.connections: int = 1 if adapter.traits.is_embedded else adapter.threads
        """How many connections may be open at once: dbt's `threads` of the target."""
        self._free = threading.BoundedSemaphore(self.connections)
        self._thread = _Thread()
        learn(secrets_in(adapter.credentials, os.environ, public=adapter.public_names))
        self.redact = masked

    @classmethod
    def open(  # noqa: PLR0913  # what a profile leaves open
        cls,
        *,
        project_dir: Path,
        profiles_dir: Path,
        manifest: Mapping[str, Any],
        profile: str | None = None,
        target: str | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> WarehouseSession:
        """Build the adapter. Nothing connects yet.

        Raises WarehouseError for a broken or missing project, profile, target or adapter plugin, and for a manifest
        that was parsed for another adapter.
        """
        project_dir, profiles_dir = Path(project_dir).resolve(), Path(profiles_dir).resolve()
        try:
            config = load_config(project_dir, profiles_dir, profile, target, variables or {})
            adapter = PrivateAdapter(config, manifest)
        except Exception as error:  # noqa: BLE001  # dbt and every driver have their own
            raise cannot_load(error, project_dir, profiles_dir, target) from None
        parsed_for = (manifest.get("metadata") or {}).get("adapter_type")
        if parsed_for and parsed_for != adapter.type:
            msg = (
                f"The manifest was parsed for {parsed_for}, but target {adapter.target} is {adapter.type}."
                " Parse the project again with this target."
            )
            raise WarehouseError(msg)
        return cls(adapter, project_dir)

    @property
    def adapter_type(self) -> str:
        """The adapter's name, such as `duckdb`."""
        return self._adapter.type

    @property
    def traits(self) -> AdapterTraits:
        """Everything that is special about the adapter's database."""
        return self._adapter.traits

    @property
    def database(self) -> str:
        """The database (catalog) of the target."""
        return self._adapter.database

    @property
    def text_type(self) -> str:
        """The name of the adapter's unbounded text type."""
        return self._adapter.text_type

    @property
    def duckdb_file(self) -> Path | None:
        """The main database file of a local DuckDB target, which may not exist yet. Only ever `stat` it."""
        return self._adapter.duckdb_file

    @property
    def database_files(self) -> Mapping[str, Path]:
        """The local DuckDB files of the target, the attached ones too, by the name of the database in lower case."""
        main = {self.database.lower(): self.duckdb_file} if self.duckdb_file is not None else {}
        return {**self._adapter.attached_files, **main}

    @property
    def file_search_path(self) -> Sequence[Path]:
        """The folders at which relative paths of files in DuckDB's SQL may begin: the project's, and those of the profile."""
        return self._adapter.file_search_path

    @property
    def is_in_memory(self) -> bool:
        """Whether the main database is in the memory of the process that opens it."""
        return self._adapter.is_in_memory

    @property
    def ducklakes(self) -> frozenset[str]:
        """The names, in lower case, of the databases that the profile attaches as `ducklake:`."""
        return self._adapter.ducklakes

    @property
    def is_motherduck(self) -> bool:
        """Whether the main database is MotherDuck's."""
        return self._adapter.is_motherduck

    @contextmanager
    def connection(self) -> Iterator[None]:
        """Connect this thread, and release everything at the end: no connection, no lock of a DuckDB file stays.

        Raises WarehouseBusyError while a writer holds the DuckDB file, and WarehouseError when the warehouse cannot
        be reached.
        """
        if self._thread.is_connected:
            yield
            return
        with self._free:
            self._connect()
            self._thread.is_connected = True
            try:
                yield
            finally:
                self._thread.is_connected = False
                self._adapter.release()

    def execute(self, sql: str, limit: int | None = None) -> list[tuple[Any, ...]]:
        """Return the rows of a statement, at most `limit`, as the driver gives them.

        Raises StatementError with the warehouse's reason, credentials masked, and StatementTimeoutError on PostgreSQL
        when it took too long. Only inside `connection()`.
        """
        if not self._thread.is_connected:
            msg = "execute() is called outside of `with session.connection():`"
            raise RuntimeError(msg)
        with self._counted(), self._refusals():
            return self._adapter.run(sql, limit)

    def cost(self) -> Cost:
        """Return the cost of all statements so far. The times of statements that ran at once add up."""
        return replace(self._cost, bytes_processed=self._adapter.bytes_processed)

    def list_relations(self, database: str, schema: str) -> list[str]:
        """Return the names of the relations of a schema, as the adapter lists them for dbt.

        Raises StatementError like `execute`. Only inside `connection()`. Most adapters list nothing where there is no
        such schema, and some where the role may not look into it.
        """
        with self._counted(), self._refusals():
            return self._adapter.list_relations(database, schema)

    def columns(self, database: str | None, schema: str, identifier: str) -> dict[str, str]:
        """Return the columns of a relation in order, each with its type, both as the catalog spells them.

        Raises StatementError like `execute`. Only inside `connection()`.
        """
        with self._counted(), self._refusals():
            return self._adapter.columns(database, schema, identifier)

    def render(self, unique_id: str, template: str) -> str:
        """Return the Jinja `template` of a source as dbt renders it.

        Raises NotAQueryError for a template that queries the warehouse, and StatementError with dbt's reason, credentials
        masked. No statement is sent.
        """
        with self._refusals():
            return self._adapter.render(unique_id, template)

    @property
    def has_last_modified(self) -> bool:
        """Whether the warehouse's metadata tells when a table last changed."""
        return self._adapter.has_last_modified

    @property
    def has_batched_last_modified(self) -> bool:
        """Whether `last_modified` of many sources is one query."""
        return self._adapter.has_batched_last_modified

    @property
    def has_sound_times(self) -> bool:
        """Whether this target makes the adapter's last-modified times sound, where they are not sound on every target."""
        return self._adapter.has_sound_times

    def last_modified(self, sources: Sequence[Source]) -> Mapping[str, datetime]:
        """Return when the tables of one database last changed, by unique id, without those that have no such time.

        No two of `sources` may have the same schema and identifier, regardless of case.
        Raises StatementError with the warehouse's reason, credentials masked. Only inside `connection()`.
        """
        with self._counted(), self._refusals():
            return self._adapter.last_modified(sources)

    def relation_kinds(self, source: Source) -> Mapping[str, tuple[str, ...]]:
        """Return what the relations in the source's schema are (`table`, `view`…), by identifier in lower case.

        More than one where names differ only in upper and lower case.
        Raises StatementError with the warehouse's reason, credentials masked. Only inside `connection()`.
        """
        with self._counted(), self._refusals():
            return self._adapter.relation_kinds(source)

    def close(self) -> None:
        """Refuse further connections. None is open between two uses, so there is nothing else to do."""
        self._closed = True

    @contextmanager
    def _counted(self) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - started
            with self._cost_lock:
                self._cost = Cost(self._cost.statements + 1, self._cost.seconds + seconds)

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001  # dbt and every driver have their own
            for refusal in _causes(error):  # dbt wraps what a template raises
                if isinstance(refusal, NotAQueryError):
                    raise NotAQueryError(self.redact(str(refusal))) from None
            raise _told_by_code(error) or StatementError(self.redact(reason(error))) from None

    def _connect(self) -> None:
        if self._closed:
            msg = "The warehouse session is closed."
            raise WarehouseError(msg)
        for wait in (*_BUSY_RETRY_SECONDS, None):
            try:
                self._adapter.open()
                if self.traits.preamble:
                    self._adapter.run(self.traits.preamble)
            except Exception as error:  # noqa: BLE001  # dbt and every driver have their own
                self._adapter.release()
                if not (self.traits.is_embedded and _is_busy(error)):
                    raise self._unreachable(error) from None
                if wait is None:
                    raise self._busy() from None
            else:
                return
            self._sleep(wait)

    def _busy(self) -> WarehouseBusyError:
        which = f"The DuckDB database {self.duckdb_file}" if self.duckdb_file else "A DuckDB file of the profile"
        return WarehouseBusyError(f"{which} is in use by a writer. It is probed again at the next tick.")

    def _unreachable(self, error: Exception) -> WarehouseError:
        return WarehouseError(
            f"Cannot connect to {self.adapter_type} with target {self._adapter.target}: {self.redact(reason(error))}."
            " Check that it is running and that `dbt debug` succeeds with this target."
        )


def _is_busy(error: BaseException) -> bool:
    return any(sign in str(seen) for seen in _causes(error) for sign in _BUSY)


def _told_by_code(error: BaseException) -> StatementError | None:
    """Return the error for a statement that PostgreSQL gave up on, by its code: the message may be in any language."""
    for seen in _causes(error):
        code = getattr(seen, "pgcode", None)
        if code == _RAISED_BY_A_FUNCTION:
            return StatementError("a function that it calls raised an error")  # its text may hold values
        if code == _LOCK_NOT_AVAILABLE:
            return StatementTimeoutError(f"another session has kept it locked for more than {LOCK_TIMEOUT_SECONDS} s")
        if code == _QUERY_CANCELED:
            return StatementTimeoutError(f"there was no answer within {STATEMENT_TIMEOUT_SECONDS} s")
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__
