"""List relations and their columns. A relation that cannot be seen is unknown: one permission error must rebuild nothing."""

# ruff: noqa: S608  # names from the manifest, quoted, in a read-only connection

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

from dagster_sao.core.code.versions import digest
from dagster_sao.core.manifest.graph import Node, Source
from dagster_sao.warehouse.adapters import Catalog, traits_of
from dagster_sao.warehouse.errors import StatementError
from dagster_sao.warehouse.queries.parallel import ask_in_rounds
from dagster_sao.warehouse.relations.names import listed_name, literal, parse_relation_name
from dagster_sao.warehouse.relations.postgres_catalog import name_array
from dagster_sao.warehouse.session import WarehouseSession

_NO_RELATION = "its relation does not have a plain name"
_EMPTY = "the warehouse lists nothing in its schema, which may be empty or hidden from the role"

# A view keeps the type and the collation that a column had, and its place in `*`.
_POSTGRES_COLUMNS = (
    "select md5(coalesce(string_agg("
    "format('%I %s %s', a.attname, format_type(a.atttypid, a.atttypmod), a.attcollation), ',' order by a.attnum), ''))"
    " from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped"
)
_SNOWFLAKE_COLUMNS = (
    "md5(listagg(concat_ws(' ', column_name, data_type, coalesce(character_maximum_length, -1),"
    " coalesce(numeric_precision, -1), coalesce(numeric_scale, -1)), ',')"
    " within group (order by ordinal_position))"
)
# It stands in the record of each view that reads the relation.
_SIGNATURE_LENGTH = 12


class Presence(str, Enum):
    """Whether a relation is in the warehouse."""

    EXISTS = "exists"
    MISSING = "missing"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Existence:
    """Whether one node's relation exists, and its columns."""

    presence: Presence
    reason: str | None = None
    """Why it is unknown, as a clause without a full stop."""
    columns: str | None = None
    """The signature of its columns, their names and types in order, where the warehouse lists them."""


@dataclass(frozen=True, slots=True)
class _Listing:
    """The relations of one schema."""

    relations: Mapping[str, str | None]
    """By name, each with the signature of its columns where the listing has them."""
    doubt: str | None = None
    """Why a relation may exist though it is not listed."""
    identities: Mapping[str, str] = field(default_factory=dict)
    """By name, what tells a relation from another that gets its name, where views go on to read the one that had it."""

    def of(self, identifier: str, *, is_source: bool) -> Existence:
        if identifier in self.relations:
            columns = self.relations[identifier]
            # A run that builds a node notes itself that it replaced the relation.
            if is_source and columns is not None and identifier in self.identities:
                columns = _signature(f"{columns} {self.identities[identifier]}")
            return Existence(Presence.EXISTS, columns=columns)
        if self.doubt is not None:
            return Existence(Presence.UNKNOWN, reason=self.doubt)
        return Existence(Presence.MISSING)


_Schema = tuple[str, str]
"""A database and a schema, as the database keeps their names."""


def existing_relations(session: WarehouseSession, nodes: Iterable[Node | Source]) -> dict[str, Existence]:
    """Return by unique id whether the relations of nodes and sources exist, and their columns.

    It takes one listing per database where possible, else one per schema.
    Raises WarehouseError when the warehouse cannot be reached, WarehouseBusyError while a writer holds a DuckDB file.
    """
    adapter_type = session.adapter_type
    nodes = list(nodes)
    names = {
        node.unique_id: parse_relation_name(node.relation_name, adapter_type) if node.relation_name else None
        for node in nodes
    }
    default = listed_name(session.database, adapter_type)
    places = {
        uid: ((name.database or default, name.schema), name.identifier)
        for uid, name in names.items()
        if name is not None
    }
    wanted = {schema for schema, _ in places.values()}
    listings = _LISTERS[traits_of(adapter_type).catalog](session, wanted) if wanted else {}
    found = {
        node.unique_id: listings[places[node.unique_id][0]].of(
            places[node.unique_id][1], is_source=isinstance(node, Source)
        )
        if node.unique_id in places
        else Existence(Presence.UNKNOWN, reason=_NO_RELATION)
        for node in nodes
    }
    # The rows are in the file; the relation is a view of it.
    return {**found, **dict.fromkeys(without_file(session.project_dir, nodes), Existence(Presence.MISSING))}


def without_file(project_dir: Path, nodes: Iterable[Node | Source]) -> list[str]:
    """Return the external models whose file is not there, by unique id. dbt runs in the project's folder."""
    return [
        node.unique_id
        for node in nodes
        if isinstance(node, Node) and node.settings.file and not (project_dir / node.settings.file).exists()
    ]


def _list_postgres(session: WarehouseSession, wanted: set[_Schema]) -> dict[_Schema, _Listing]:
    here = session.database.lower()
    reachable = {schema for schema in wanted if schema[0].lower() == here}
    elsewhere = _Listing({}, f"it is not in {session.database}, the database of the target")
    listings = dict.fromkeys(wanted - reachable, elsewhere)
    # `pg_class` shows every relation to everyone, `information_schema` only what the role may use.
    sql = (
        f"select n.nspname, has_schema_privilege(n.oid, 'usage'), c.relname, c.oid::text, ({_POSTGRES_COLUMNS})"
        " from pg_namespace n left join pg_class c on c.relnamespace = n.oid and c.relkind in ('r', 'p', 'f', 'v', 'm')"
        f" where n.nspname = any({name_array(sorted({schema for _, schema in reachable}))})"
    )
    try:
        with session.connection():
            rows = session.execute(sql)
    except StatementError as error:
        return {**listings, **_unlisted(reachable, error)}
    found: dict[str, dict[str, str | None]] = {}
    identities: dict[str, dict[str, str]] = {}
    closed = set()
    for schema, is_open, name, oid, columns in rows:
        relations = found.setdefault(schema, {})
        if name is not None:
            relations[name] = _signature(columns)
            identities.setdefault(schema, {})[name] = oid
        if not is_open:
            closed.add(schema)
    for key in reachable:
        schema = key[1]
        doubt = f"permission denied for schema {schema}" if schema in closed else None
        listings[key] = _Listing(found.get(schema, {}), doubt, identities.get(schema, {}))
    return listings


def _list_duckdb(session: WarehouseSession, wanted: set[_Schema]) -> dict[_Schema, _Listing]:
    file = session.duckdb_file
    # Before the listing, so that a file that is created meanwhile is listed.
    is_absent = file is not None and not file.exists() and file.parent.is_dir()
    listings = {}
    with session.connection():
        attached = {str(row[0]).lower() for row in session.execute("select database_name from duckdb_databases()")}
        for database in {database for database, _ in wanted}:
            schemas = {schema for schema in wanted if schema[0] == database}
            if is_absent and database == session.database.lower() and database not in attached:
                listings.update(dict.fromkeys(schemas, _Listing({})))
            elif database not in attached:
                listings.update(dict.fromkeys(schemas, _Listing({}, f"the database {database} is not attached")))
            elif database == "memory":
                doubt = "the target keeps its tables in the memory of another process"
                listings.update(dict.fromkeys(schemas, _Listing({}, doubt)))
            else:
                listings.update(_list_duckdb_database(session, database, schemas))
    return listings


def _list_duckdb_database(session: WarehouseSession, database: str, schemas: set[_Schema]) -> dict[_Schema, _Listing]:
    # Only this database: an attached PostgreSQL would list all of its tables.
    within = f"where lower(database_name) = {literal(database)}"
    relations = (
        f"select schema_name as s, table_name as n from duckdb_tables() {within}"
        f" union all select schema_name, view_name from duckdb_views() {within}"
    )
    columns = (
        "select schema_name as s, table_name as n, md5(string_agg("
        """'"' || replace(column_name, '"', '""') || '" ' || data_type, ',' order by column_index)) as signature"""
        f" from duckdb_columns() {within} group by all"
    )
    with_columns = (
        "select lower(r.s), lower(r.n), c.signature"
        f" from ({relations}) r left join ({columns}) c on c.s = r.s and c.n = r.n"
    )
    try:
        return _group(schemas, _ask(session, with_columns, f"select lower(s), lower(n), null from ({relations}) r"))
    except StatementError as error:
        return _unlisted(schemas, error)


def _list_snowflake(session: WarehouseSession, wanted: set[_Schema]) -> dict[_Schema, _Listing]:
    """List database by database."""
    databases = {database: {schema for schema in wanted if schema[0] == database} for database, _ in wanted}
    return _list_in_rounds(session, databases.values(), _list_snowflake_database)


def _list_snowflake_database(session: WarehouseSession, schemas: set[_Schema]) -> dict[_Schema, _Listing]:
    database = next(iter(schemas))[0]
    quoted = '"' + database.replace('"', '""') + '"'
    within = ", ".join(literal(schema) for _, schema in sorted(schemas))
    catalog = f"{quoted}.information_schema"
    relations = f"from {catalog}.schemata s left join {catalog}.tables t on t.table_schema = s.schema_name"
    wanted = f"where s.schema_name in ({within})"
    columns = (
        f"select table_schema, table_name, {_SNOWFLAKE_COLUMNS} as signature from {catalog}.columns"
        f" where table_schema in ({within}) group by table_schema, table_name"
    )
    with_columns = (
        f"select s.schema_name, t.table_name, c.signature {relations}"
        f" left join ({columns}) c on c.table_schema = t.table_schema and c.table_name = t.table_name {wanted}"
    )
    without = f"select s.schema_name, t.table_name, null {relations} {wanted}"
    rows = _ask(session, with_columns, without)
    visible = {row[0] for row in rows}
    # A dropped schema and one that the role may not see look the same.
    return {
        key: listing if key[1] in visible else _Listing({}, _EMPTY) for key, listing in _group(schemas, rows).items()
    }


def _list_by_schema(session: WarehouseSession, wanted: set[_Schema]) -> dict[_Schema, _Listing]:
    """List as dbt does, schema by schema: every adapter can."""
    return _list_in_rounds(session, [{schema} for schema in sorted(wanted)], _list_schema)


def _list_schema(session: WarehouseSession, schemas: set[_Schema]) -> dict[_Schema, _Listing]:
    (schema,) = schemas
    relations = dict.fromkeys(listed_name(name, session.adapter_type) for name in session.list_relations(*schema))
    return {schema: _Listing(relations, None if relations else _EMPTY)}


def _list_in_rounds(
    session: WarehouseSession,
    groups: Iterable[set[_Schema]],
    list_group: Callable[[WarehouseSession, set[_Schema]], dict[_Schema, _Listing]],
) -> dict[_Schema, _Listing]:
    """List groups of schemas, one statement each, as many at once as the session allows."""
    listings: dict[_Schema, _Listing] = {}
    ask = partial(list_group, session)
    for group, listed in ask_in_rounds(session, deque(groups), lambda: ask, lambda: False):
        listings.update(_unlisted(group, listed) if isinstance(listed, StatementError) else listed)
    return listings


def _group(schemas: set[_Schema], rows: Iterable[tuple[Any, ...]]) -> dict[_Schema, _Listing]:
    """Return the listings of schemas of one database, from rows of schema, name (null in an empty schema) and columns."""
    found: dict[str, dict[str, str | None]] = {schema: {} for _, schema in schemas}
    for schema, name, columns in rows:
        if schema in found and name is not None:
            found[schema][name] = _signature(columns)
    return {key: _Listing(found[key[1]]) for key in schemas}


def _unlisted(schemas: Iterable[_Schema], error: StatementError) -> dict[_Schema, _Listing]:
    return dict.fromkeys(schemas, _Listing({}, f"its schema cannot be listed: {error}"))


def _ask(session: WarehouseSession, with_columns: str, without: str) -> list[tuple[Any, ...]]:
    """Return the rows of a listing. Where columns cannot be read, relations are listed all the same."""
    try:
        return session.execute(with_columns)
    except StatementError:
        return session.execute(without)


def _signature(columns: str | None) -> str | None:
    return digest(columns)[:_SIGNATURE_LENGTH] if columns else None


_LISTERS: Mapping[Catalog, Callable[[WarehouseSession, set[_Schema]], dict[_Schema, _Listing]]] = {
    Catalog.DBT: _list_by_schema,
    Catalog.DUCKDB: _list_duckdb,
    Catalog.POSTGRES: _list_postgres,
    Catalog.SNOWFLAKE: _list_snowflake,
}
