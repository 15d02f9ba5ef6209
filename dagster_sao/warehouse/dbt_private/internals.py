"""The only module that touches dbt's internals. `tests/warehouse/dbt_private/test_dbt_private.py` names each of them.

dbt has no public way to hold an adapter: `dbtRunner` and dagster-dbt put theirs into the global `FACTORY` and take
it away again. Here an adapter lives outside of it, with its own connections, so that neither disturbs the other.
"""

from __future__ import annotations

import contextlib
import copy
import re
import threading
from argparse import Namespace
from collections.abc import Mapping, Sequence
from contextvars import copy_context
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from dagster_sao.core.manifest.graph import Source
from dagster_sao.warehouse.adapters import AdapterTraits, traits_of
from dagster_sao.warehouse.dbt_private.environment import environment_of_dbt
from dagster_sao.warehouse.read_only import NotAQueryError

MEMORY = ":memory:"
CONNECTION_NAME = "dagster_sao"

# Of `adapter`, what a source's template may use: nothing of it sends a statement.
_ASKS_NOTHING = frozenset({"quote", "quote_as_configured", "quote_seed_column"})
# What in a template's context asks the warehouse, runs something there or writes a file.
_ASKING_NAMES = frozenset({"run_query", "statement", "noop_statement", "run_query_as", "submit_python_job", "write"})

_LAKE = "ducklake:"
# What stands before a catalog that is a file.
_CATALOG_SCHEMES = r"ducklake:((duckdb|sqlite):)?"

# Building a configuration reads dbt's process-wide flags.
_FLAGS_LOCK = threading.RLock()


def load_config(
    project_dir: Path,
    profiles_dir: Path,
    profile: str | None,
    target: str | None,
    variables: Mapping[str, Any],
) -> Any:
    """Return dbt's RuntimeConfig of a project and target, without a parse and without changing directory.

    Raises whatever dbt raises for a broken project, profile or target.
    """
    # dbt keeps the environment in a context variable; a copied context leaves the caller's as it was.
    return copy_context().run(_load_config, project_dir, profiles_dir, profile, target, dict(variables))


def _load_config(
    project_dir: Path,
    profiles_dir: Path,
    profile: str | None,
    target: str | None,
    variables: dict[str, Any],
) -> Any:
    from dbt.config.profile import Profile, read_profile
    from dbt.config.project import load_raw_project
    from dbt.config.renderer import ProfileRenderer
    from dbt.config.runtime import RuntimeConfig, load_project
    from dbt_common.context import set_invocation_context

    set_invocation_context(dict(environment_of_dbt(project_dir)))
    with _FLAGS_LOCK:
        flags = _ensure_flags(project_dir, profiles_dir)
        renderer = ProfileRenderer(variables)
        named = renderer.render_value(load_raw_project(str(project_dir)).get("profile"))
        chosen = Profile.from_raw_profiles(
            raw_profiles=read_profile(str(profiles_dir)),
            profile_name=Profile.pick_profile_name(profile, named),
            renderer=renderer,
            target_override=target,
        )
        # The version check is dbt's own business at the next build, not that of a look at the data.
        project = load_project(str(project_dir), False, chosen, variables)  # noqa: FBT003  # positional in dbt
        args = Namespace(**vars(flags))
        args.vars, args.VARS = variables, variables
        args.profile, args.target = chosen.profile_name, chosen.target_name
        return RuntimeConfig.from_parts(project, chosen, args)


def ensure_flags(project_dir: Path, profiles_dir: Path) -> None:
    """Give dbt's functions the process-wide flags that they read, where no invocation has."""
    with _FLAGS_LOCK:
        _ensure_flags(project_dir, profiles_dir)


def _ensure_flags(project_dir: Path, profiles_dir: Path) -> Any:
    """Return dbt's global flags, setting them only where no invocation has: another thread may be in one."""
    import dbt.flags

    # dagster-dbt selects nodes under a part of the flags, and leaves it set. An invocation's are no Namespace.
    flags = dbt.flags.get_flags()
    if isinstance(flags, Namespace) or getattr(flags, "PROFILES_DIR", None) is None:
        paths = Namespace(profiles_dir=str(profiles_dir), project_dir=str(project_dir))
        dbt.flags.set_from_args(paths, None)
    return dbt.flags.get_flags()


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
        """What statements cost so far, where the warehouse says so."""
        self._lock = threading.Lock()
        self.ducklakes: frozenset[str] = frozenset()
        load_plugin(self.type)
        adapter_class: Any = get_adapter_class_by_name(self.type)
        self.is_in_memory: bool = self.traits.is_embedded and config.credentials.path == MEMORY
        if self.traits.is_embedded:
            self.ducklakes = _ducklakes(config.credentials)
            self.duckdb_file = _make_read_only(config.credentials, Path(config.project_root))
            adapter_class = _with_own_database(adapter_class)
        if self.traits.is_read_only_by_transaction:
            config.credentials.autocommit = False  # read only, and with time limits, is the transaction
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
        """Open this thread's connection now: dbt would wait for the first statement."""
        self._prepare_thread()
        connections = self._adapter.connections
        if self.traits.is_embedded:
            type(connections).close_idle_database_of_dbt()
        connections.clear_thread_connection()
        connection = connections.set_connection_name(CONNECTION_NAME)
        handle = connection.handle
        if self.traits.is_read_only_by_transaction:
            _read_only_for_good(handle)

    def release(self) -> None:
        """Close this thread's connection, and DuckDB's database with it: that frees the file's lock."""
        connections = self._adapter.connections
        connection = connections.get_if_exists()
        if connection is not None:
            # Not the manager's `release`, with which Snowflake keeps the connection for the thread's next model.
            # One that broke cannot be closed; it is gone either way.
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
            # BigQuery and its like have no cursor: agate is all there is.
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

    def render(self, unique_id: str, template: str) -> str:
        """Return a source's template as dbt renders it for `dbt source freshness`, without a statement being sent.

        Raises NotAQueryError for a template that would send one, and whatever dbt raises for a broken template.
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

        No two of `sources` may share schema and identifier but for upper and lower case: dbt's batch would mix them up.
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
        """Return what the adapter's own listing, without its cache, has in the schema of a relation."""
        self._use_macros()
        listed = self._adapter.list_relations_without_caching(within.without_identifier())
        found = [(str(one.identifier), _kind_of(one)) for one in listed]
        return [(name, kind) for name, kind in found if kind != "function"]

    def _freshness(self, relation: Any) -> Any:
        try:
            return self._adapter.calculate_freshness_from_metadata(relation)[1]
        except KeyError:  # what dbt says of a table that does not exist
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
        with _FLAGS_LOCK:
            _ensure_flags(Path(self._config.project_root), Path(self._config.args.PROFILES_DIR))

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
            """What a template has as `adapter`: names and quotes, nothing that the warehouse would be asked for."""

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


def _refuse(name: str, *_: Any, **__: Any) -> None:
    raise _asks_the_warehouse(name)


def _asks_the_warehouse(name: str) -> NotAQueryError:
    return NotAQueryError(
        f"asks the warehouse in its Jinja ({name}), which a probe never does. Ask with one SELECT instead"
    )


def _read_only_for_good(handle: Any) -> None:
    """Let no transaction of a PostgreSQL connection write: also not one that follows a `commit` or `rollback`."""
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
    # What Databricks calls a provider. Hive's listing has none, and only Delta tables have the history that is read.
    provider = (getattr(relation, "metadata", None) or {}).get("Provider") or "delta"
    return kind if kind != "table" or provider == "delta" else f"{provider} table"


def _make_read_only(credentials: Any, project_dir: Path) -> Path | None:
    """Turn a DuckDB target into one for looking only; return its database file, None where it has none."""
    # Ours is one short look; the waiting is done by the session, which knows when to give up.
    credentials.retries = None
    credentials.keep_open = False
    settings = dict(credentials.settings or {})
    # `external_location: data/x.csv` is relative to the project, and this process may run anywhere.
    paths = [str(project_dir), *str(settings.get("file_search_path") or "").split(",")]
    credentials.settings = {**settings, "file_search_path": ",".join(path for path in paths if path)}
    for attached in credentials.attach or []:
        attached.path = _absolute(str(attached.path), project_dir)
        if not attached.type and _is_ours(attached.path) and "read_only" not in (attached.options or {}):
            attached.read_only = True
        if _is_lake(attached.path):
            attached.options = _with_absolute_data(attached.options or {}, project_dir)
    if credentials.remote or not _is_ours(credentials.path):
        return None
    credentials.path = _absolute(credentials.path, project_dir)
    if not credentials.is_motherduck:  # with an attached MotherDuck dbt-duckdb creates a schema on connecting
        credentials.config_options = {**(credentials.config_options or {}), "access_mode": "READ_ONLY"}
    return Path(credentials.path) if _is_local(credentials.path) else None


def place_of(credentials: Any, project_dir: Path) -> str:
    """Return where the relations of a target are: the path of a database file, else account or host and port."""
    if traits_of(credentials.type).is_embedded and not credentials.remote and _is_ours(credentials.path):
        path = _absolute(credentials.path, project_dir)
        return path if _is_lake(path) else str(Path(path).resolve())
    return f"{credentials.unique_field} {getattr(credentials, 'port', None) or ''}".strip()


def _ducklakes(credentials: Any) -> frozenset[str]:
    """Return the names of the databases that are lakes by their path, in lower case. Their catalog can be anywhere."""
    attached = {
        str(a.path): a.alias or credentials.path_derived_database_name(a.path) for a in credentials.attach or []
    }
    names = {**attached, str(credentials.path): credentials.database}
    return frozenset(str(name).lower() for path, name in names.items() if _is_lake(path))


def _with_absolute_data(options: Mapping[str, Any], project_dir: Path) -> dict[str, Any]:
    """Return the options of a lake with a path to its files that is right in this process, wherever it runs."""
    found = {name.lower(): value for name, value in options.items()}
    path = str(found.get("data_path", ""))
    if not path or not _is_local(path) or Path(path).is_absolute():
        return dict(options)
    # The catalog holds the relative path and refuses another one unless told that this is meant.
    return {**found, "data_path": f"{project_dir / path}/", "override_data_path": True}


def _is_ours(path: str) -> bool:
    """Whether `READ_ONLY` is understood there."""
    return _is_local(path) or _is_lake(path)


def _is_lake(path: str) -> bool:
    return path.lower().startswith(_LAKE)


def _is_local(path: str) -> bool:
    # `md:`, `ducklake:`, `s3://`, `postgres:…`; one letter before the colon is a Windows drive.
    return path != MEMORY and len(path.split(":", 1)[0]) in {1, len(path)}


def _absolute(path: str, project_dir: Path) -> str:
    scheme = re.match(_CATALOG_SCHEMES, path, re.IGNORECASE)
    file = path[scheme.end() :] if scheme else path
    return f"{scheme[0] if scheme else ''}{project_dir / file}" if _is_local(file) else path


def _with_own_database(adapter_class: Any) -> Any:
    """Return dbt-duckdb's adapter with a database of its own.

    dbt-duckdb keeps the open database on the class of its connection manager, and opening another one closes it:
    on the shared class we would close the database of a dbt run in another thread of this process.
    """
    shared = adapter_class.ConnectionManager

    class PrivateConnectionManager(shared):  # type: ignore[misc, valid-type]  # a base known at run time only
        _ENV = None
        _LOCK = threading.RLock()

        @classmethod
        def get_credentials(cls, credentials: Any) -> Any:
            return _empty_if_missing(credentials)

        @classmethod
        def close_idle_database_of_dbt(cls) -> None:
            # After a dbt invocation in this process its read-write database stays open, and no other configuration
            # can be opened beside it. Without a handle nobody uses it, and dbt-duckdb opens it again when asked.
            database = shared._ENV
            if getattr(database, "handle_count", None) is None:
                return
            with database.lock:
                if database.handle_count == 0:
                    database.close()

        @classmethod
        def drop_database(cls) -> None:
            with cls._LOCK:
                if cls._ENV is not None:
                    cls._ENV.close()
                    cls._ENV = None

    return type("PrivateDuckDBAdapter", (adapter_class,), {"ConnectionManager": PrivateConnectionManager})


def _empty_if_missing(credentials: Any) -> Any:
    """Return credentials with nothing in the place of files that have not been created.

    DuckDB cannot open a missing file read-only. The first build creates it; until then no table exists, and sources
    in external files can be read all the same.
    """
    attached = credentials.attach or []
    there = [attachment for attachment in attached if not _is_missing(str(attachment.path))]
    if len(there) == len(attached) and not _is_missing(credentials.path):
        return credentials
    empty = copy.copy(credentials)
    empty.attach = there
    if _is_missing(credentials.path):
        empty.path = MEMORY
        empty.config_options = {k: v for k, v in (credentials.config_options or {}).items() if k != "access_mode"}
    return empty


def _is_missing(path: str) -> bool:
    file = re.sub(_CATALOG_SCHEMES, "", path, count=1, flags=re.IGNORECASE)
    return _is_local(file) and not Path(file).exists()
