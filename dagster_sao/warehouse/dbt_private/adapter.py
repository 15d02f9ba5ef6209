"""A dbt adapter with connections of its own.

dbt has no public way to hold an adapter: `dbtRunner` and dagster-dbt put theirs into the global `FACTORY` and take
it away again. Here an adapter lives outside of it, so that neither disturbs the other.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from dagster_sao.core.manifest.graph import Source
from dagster_sao.warehouse.adapters import AdapterTraits, traits_of
from dagster_sao.warehouse.dbt_private import duckdb
from dagster_sao.warehouse.dbt_private.config import ensure_flags
from dagster_sao.warehouse.dbt_private.environment import environment_of_dbt
from dagster_sao.warehouse.read_only import NotAQueryError

_CONNECTION_NAME = "dagster_sao"

# What a source's template may use of `adapter`: none of these send a statement.
_ASKS_NOTHING = frozenset({"quote", "quote_as_configured", "quote_seed_column"})
# The functions in a template's context that query the warehouse, run something there or write a file.
_ASKING_NAMES = frozenset({"run_query", "statement", "noop_statement", "run_query_as", "submit_python_job", "write"})


class PrivateAdapter:
    """A dbt adapter outside of dbt's global FACTORY, with raw rows instead of agate's guesses."""

    def __init__(self, config: Any, manifest: Mapping[str, Any]) -> None:
        from dbt.adapters.factory import get_adapter_class_by_name, load_plugin
        from dbt.mp_context import get_mp_context

        self.type: str = config.credentials.type
        self._config = config
        self._raw_manifest = manifest
        self._manifest: Any = None
        self.duckdb_file: Path | None = None
        self.bytes_processed = 0
        """The bytes that statements have processed so far, where the warehouse reports them."""
        self._lock = threading.Lock()
        self.ducklakes: frozenset[str] = frozenset()
        self.attached_files: dict[str, Path] = {}
        load_plugin(self.type)
        adapter_class: Any = get_adapter_class_by_name(self.type)
        self.is_in_memory: bool = self.traits.is_embedded and config.credentials.path == duckdb.MEMORY
        if self.traits.is_embedded:
            self.ducklakes = duckdb.ducklakes(config.credentials)
            self.duckdb_file = duckdb.make_read_only(config.credentials, Path(config.project_root))
            self.attached_files = duckdb.attached_files(config.credentials)
            adapter_class = duckdb.with_own_database(adapter_class)
        if self.traits.is_read_only_by_transaction:
            config.credentials.autocommit = False  # the transaction is read only and has the time limits
        self._adapter: Any = adapter_class(config, get_mp_context())

    @property
    def traits(self) -> AdapterTraits:
        """Everything that is special about the adapter's database."""
        return traits_of(self.type)

    @property
    def is_motherduck(self) -> bool:
        """Whether the main database is MotherDuck's."""
        return bool(getattr(self._config.credentials, "is_motherduck_database", False))

    @property
    def file_search_path(self) -> list[Path]:
        """The folders at which relative paths of files in DuckDB's SQL may begin."""
        folder, settings = Path(self._config.project_root), getattr(self._config.credentials, "settings", None) or {}
        return [folder / path.strip() for path in ["", *str(settings.get("file_search_path") or "").split(",")]]

    @property
    def threads(self) -> int:
        """How many connections dbt opens at most while it builds with this target."""
        return max(int(self._config.threads or 1), 1)

    @property
    def text_type(self) -> str:
        """The name of the adapter's unbounded text type."""
        return str(self._adapter.Column.translate_type("STRING"))

    @property
    def database(self) -> str:
        """The database (catalog) of the target."""
        return str(self._config.credentials.database)

    @property
    def target(self) -> str:
        """The target and profile, as messages name them."""
        return f"`{self._config.target_name}` of profile `{self._config.profile_name}`"

    @property
    def credentials(self) -> Mapping[str, Any]:
        """All values of the target, secrets included. For masking only."""
        return dict(self._config.credentials.to_dict(omit_none=True))

    @property
    def public_names(self) -> tuple[str, ...]:
        """The names of the values that dbt itself prints in `dbt debug`."""
        return tuple(self._config.credentials._connection_keys())

    def open(self) -> None:
        """Open this thread's connection now; dbt would open it with the first statement."""
        self._prepare_thread()
        connections = self._adapter.connections
        if self.traits.is_embedded:
            type(connections).close_idle_database_of_dbt()
        connections.clear_thread_connection()
        connection = connections.set_connection_name(_CONNECTION_NAME)
        handle = connection.handle
        if self.traits.is_read_only_by_transaction:
            _read_only_for_good(handle)

    def release(self) -> None:
        """Close this thread's connection, and DuckDB's database with it: that frees the file's lock."""
        connections = self._adapter.connections
        connection = connections.get_if_exists()
        if connection is not None:
            # Not the manager's `release`, with which Snowflake keeps the connection for the thread's next model.
            # A broken connection cannot be closed; it is gone either way.
            with contextlib.suppress(Exception):
                connections.close(connection)
        connections.clear_thread_connection()
        if self.traits.is_embedded:
            type(connections).drop_database()

    def run(self, sql: str, limit: int | None = None) -> list[tuple[Any, ...]]:
        """Return the rows of a statement as the driver gives them, at most `limit`."""
        from dbt.adapters.sql.connections import SQLConnectionManager

        connections = self._adapter.connections
        if not isinstance(connections, SQLConnectionManager):
            # BigQuery and others have no cursor: dbt gives only agate's table.
            response, table = self._adapter.execute(sql, fetch=True, limit=limit)
            with self._lock:
                self.bytes_processed += getattr(response, "bytes_processed", None) or 0
            return [tuple(row) for row in table.rows]
        _, cursor = connections.add_query(sql, auto_begin=False)
        if cursor.description is None:
            return []
        with connections.exception_handler(sql):
            rows = cursor.fetchall() if limit is None else cursor.fetchmany(limit)
        return [tuple(row) for row in rows]

    def list_relations(self, database: str, schema: str) -> list[str]:
        """Return the names of the relations of a schema, without functions."""
        within = self._adapter.Relation.create(
            database=database, schema=schema, identifier="", quote_policy=self._config.quoting
        )
        return [name for name, _ in self._listed(within)]

    def columns(self, database: str | None, schema: str, identifier: str) -> dict[str, str]:
        """Return the columns of a relation in order, each with its type. Raises whatever dbt or the driver raises."""
        self._use_macros()
        relation = self._adapter.Relation.create(
            database=database, schema=schema, identifier=identifier, quote_policy=self._config.quoting
        )
        return {column.column: str(column.data_type) for column in self._adapter.get_columns_in_relation(relation)}

    def render(self, unique_id: str, template: str) -> str:
        """Return a source's template as dbt renders it for `dbt source freshness`. Sends no statement.

        Raises NotAQueryError for a template that would send a statement, and whatever dbt raises for a broken template.
        """
        from dbt.clients import jinja

        self._prepare_thread()
        manifest = self._dbt_manifest()
        source = manifest.sources[unique_id]
        return str(jinja.get_rendered(template, self._source_context(source, manifest), source))

    @property
    def has_last_modified(self) -> bool:
        """Whether dbt can read from this warehouse's metadata when a table last changed."""
        from dbt.adapters.capability import Capability

        return bool(self._adapter.supports(Capability.TableLastModifiedMetadata))

    @property
    def has_batched_last_modified(self) -> bool:
        """Whether dbt reads these times of many tables in one query."""
        from dbt.adapters.capability import Capability

        if not self._adapter.supports(Capability.TableLastModifiedMetadataBatch):
            return False
        flag = self.traits.times.batch_flag
        return not flag or bool(getattr(self._adapter.behavior, flag).no_warn)

    @property
    def has_sound_times(self) -> bool:
        """Whether the target makes these times sound: on Redshift, `datasharing: true` reads SHOW TABLES, not the query log."""
        method = self.traits.times.sound_if
        return bool(method) and bool(getattr(self._adapter, method, bool)())

    def last_modified(self, sources: Sequence[Source]) -> dict[str, datetime]:
        """Return when the tables of one database last changed, by unique id, without those that have no such time.

        No two of `sources` may have the same schema and identifier, regardless of case: dbt's batch would mix them up.
        Raises whatever dbt or the driver raises.
        """
        self._use_macros()
        relations = {self._relation_of(source): source.unique_id for source in sources}
        if self.has_batched_last_modified:
            _, found = self._adapter.calculate_freshness_from_metadata_batch(list(relations))
        else:
            found = {relation: answer for relation in relations if (answer := self._freshness(relation))}
        times = {relations[relation]: answer["max_loaded_at"] for relation, answer in found.items()}
        # dbt turns the null of a view into the year 1.
        return {unique_id: time for unique_id, time in times.items() if time.year > 1}

    def relation_kinds(self, source: Source) -> dict[str, tuple[str, ...]]:
        """Return what the relations in the source's schema are (`table`, `view`…), by identifier in lower case.

        More than one where names differ only in upper and lower case. Raises whatever dbt or the driver raises.
        """
        found: dict[str, tuple[str, ...]] = {}
        for identifier, kind in self._listed(self._relation_of(source)):
            name = identifier.lower()
            found[name] = (*found.get(name, ()), str(kind))
        return found

    def _listed(self, within: Any) -> list[tuple[str, str | None]]:
        """Return the relations in the schema of a relation, by the adapter's own listing without its cache."""
        self._use_macros()
        listed = self._adapter.list_relations_without_caching(within.without_identifier())
        found = [(str(one.identifier), _kind_of(one)) for one in listed]
        return [(name, kind) for name, kind in found if kind != "function"]

    def _freshness(self, relation: Any) -> Any:
        try:
            return self._adapter.calculate_freshness_from_metadata(relation)[1]
        except KeyError:  # how dbt reports a table that does not exist
            return None

    def _relation_of(self, source: Source) -> Any:
        known = self._dbt_manifest().sources.get(source.unique_id)
        if known is not None:
            return _relation(self._adapter.Relation, self._config, known)
        # A node of another dbt project.
        return self._adapter.Relation.create(
            database=source.database, schema=source.schema, identifier=source.identifier or source.name
        )

    def _use_macros(self) -> None:
        self._prepare_thread()
        self._adapter.set_macro_resolver(self._dbt_manifest())
        self._adapter.set_macro_context_generator(self._macro_context)

    def _prepare_thread(self) -> None:
        from dbt_common.context import set_invocation_context, try_get_invocation_context

        if try_get_invocation_context() is None:
            set_invocation_context(dict(environment_of_dbt(Path(self._config.project_root))))
        ensure_flags(Path(self._config.project_root), Path(self._config.args.PROFILES_DIR))

    def _dbt_manifest(self) -> Any:
        # Macros and sources are a tenth of the cost of the whole manifest, and all that a source can name.
        with self._lock:
            if self._manifest is None:
                from dbt.artifacts.schemas.manifest import ManifestMetadata
                from dbt.contracts.graph.manifest import Manifest
                from dbt.contracts.graph.nodes import Macro, SourceDefinition

                raw = self._raw_manifest
                self._manifest = Manifest(
                    macros={uid: Macro.from_dict(dict(macro)) for uid, macro in raw["macros"].items()},
                    sources={uid: SourceDefinition.from_dict(dict(source)) for uid, source in raw["sources"].items()},
                    metadata=ManifestMetadata(adapter_type=self.type, project_name=self._config.project_name),
                )
            return self._manifest

    def _macro_context(self, macro: Any, config: Any, manifest: Any, package_name: str | None) -> dict[str, Any]:
        from dbt.context.manifest import ManifestContext
        from dbt.context.providers import MacroContext, OperationProvider

        adapter = self._adapter

        class PrivateMacroContext(MacroContext):
            def __init__(self) -> None:  # as below
                self.model = macro
                self.sql_results = {}
                self.context_config = None
                self.provider = OperationProvider()
                self.adapter = adapter
                ManifestContext.__init__(self, config, manifest, macro.package_name)
                self.db_wrapper = self.provider.DatabaseWrapper(adapter, self.namespace)
                self._search_package = package_name or config.project_name

        return dict(PrivateMacroContext().to_dict())

    def _source_context(self, source: Any, manifest: Any) -> dict[str, Any]:
        from dbt.context.base import contextproperty
        from dbt.context.manifest import ManifestContext
        from dbt.context.providers import RuntimeDatabaseWrapper, RuntimeProvider, SourceContext

        adapter, config = self._adapter, self._config

        class SilentAdapter(RuntimeDatabaseWrapper):
            """The `adapter` of a template: names and quotes, but nothing that queries the warehouse."""

            def __getattr__(self, name: str) -> Any:
                if name not in _ASKS_NOTHING:
                    raise _asks_the_warehouse(f"adapter.{name}")
                return super().__getattr__(name)

            def commit(self) -> None:
                raise _asks_the_warehouse("adapter.commit")

        class PrivateSourceContext(SourceContext):
            def __init__(self) -> None:  # ProviderContext's own asks the global FACTORY for its adapter
                self.model = source
                self.sql_results = {}
                self.context_config = None
                self.provider = RuntimeProvider()
                self.adapter = adapter
                ManifestContext.__init__(self, config, manifest, source.package_name)
                self.db_wrapper = SilentAdapter(adapter, self.namespace)

            @contextproperty()
            def this(self) -> Any:
                return _relation(adapter.Relation, config, source)

        # The macros that the template calls have this very dictionary as their context, so it must not be a copy.
        context: dict[str, Any] = PrivateSourceContext().to_dict()
        for name in _ASKING_NAMES & set(context):
            context[name] = partial(_refuse, name)
        return context


def internal_packages(adapter_type: str) -> frozenset[str]:
    """Return the packages of dbt and of an adapter, whose macros are dbt's own. Raises when the adapter is not installed."""
    from dbt.adapters.factory import get_adapter_package_names, load_plugin

    load_plugin(adapter_type)
    return frozenset(get_adapter_package_names(adapter_type))


def _refuse(name: str, *_: Any, **__: Any) -> None:
    raise _asks_the_warehouse(name)


def _asks_the_warehouse(name: str) -> NotAQueryError:
    return NotAQueryError(
        f"queries the warehouse in its Jinja ({name}), which a probe never does. Write one SELECT instead"
    )


def _read_only_for_good(handle: Any) -> None:
    """Let no transaction of a PostgreSQL connection write, even after a `commit` or `rollback`."""
    handle.commit()  # dbt has sent `set role`
    handle.autocommit = True
    with handle.cursor() as cursor:
        cursor.execute("set default_transaction_read_only = on")
    handle.autocommit = False


def _relation(relation_class: Any, config: Any, source: Any) -> Any:
    from dbt.adapters.base.relation import BaseRelation

    extra = getattr(source.config, "extra", None) or {}
    if "plugin" in {**source.meta, **extra}:
        # dbt-duckdb's own create_from would load the plugin's data into the warehouse.
        plain: Any = BaseRelation.create_from
        return plain.__func__(relation_class, config, source)
    return relation_class.create_from(config, source)


def _kind_of(relation: Any) -> str | None:
    if relation.type is None:
        return None
    kind = str(getattr(relation.type, "value", relation.type))
    if kind == "table" and getattr(relation, "is_iceberg_format", False):
        return "iceberg table"
    # The provider in Databricks' listing. Hive's listing has none, and only Delta tables have the history that is read.
    provider = (getattr(relation, "metadata", None) or {}).get("Provider") or "delta"
    return kind if kind != "table" or provider == "delta" else f"{provider} table"
