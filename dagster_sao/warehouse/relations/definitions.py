"""What the relations of models are: tables, or views of which query. Something else may have put another one in their place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from dagster_sao.core.manifest.graph import Node
from dagster_sao.warehouse.adapters import Catalog, traits_of
from dagster_sao.warehouse.errors import StatementError
from dagster_sao.warehouse.relations.names import RelationName, literal, parse_relation_name
from dagster_sao.warehouse.relations.postgres_catalog import name_array
from dagster_sao.warehouse.session import WarehouseSession

# A view's parsed query: unlike `pg_get_viewdef`, it waits for no lock, and stays when a column that it reads is renamed. Where
# its words stood in the statement, and the view's own number, are others when the same view is created again.
_POSTGRES = """
select n.nspname, c.relname, concat_ws(' ', c.relkind, md5(regexp_replace(
         r.ev_action::text, format(':(relid %s(?![0-9])|(location|stmt_location|stmt_len) -?[0-9]+)', c.oid), '', 'g')))
  from pg_class c
  join pg_namespace n on n.oid = c.relnamespace
  left join pg_rewrite r on r.ev_class = c.oid and r.rulename = '_RETURN' and c.relkind = 'v'
 where n.nspname = any({schemas}) and c.relname = any({names})
"""
_DUCKDB = """
select lower(schema_name), lower(table_name), 'table' from duckdb_tables() where lower(database_name) = {database}
union all
select lower(schema_name), lower(view_name), 'view ' || md5(sql) from duckdb_views() where lower(database_name) = {database}
"""

_Definitions = dict[tuple[str, str], str]
"""By schema and name, as the database keeps them."""


def has_definitions(adapter_type: str) -> bool:
    """Return whether `relation_definitions` has an answer for relations of an adapter."""
    return traits_of(adapter_type).catalog in _READERS


def relation_definitions(session: WarehouseSession, nodes: Iterable[Node]) -> dict[str, str]:
    """Return by unique id what the relation of a node is; two equal answers are the same table, or a view of the same query.

    What is not listed, or in a database that cannot be queried, is left out. Raises WarehouseError when the warehouse cannot
    be reached, and WarehouseBusyError while a writer holds a DuckDB file.
    """
    read = _READERS.get(traits_of(session.adapter_type).catalog)
    if read is None:
        return {}
    here = session.database.lower()
    databases: dict[str, dict[str, RelationName]] = {}
    for node in nodes:
        name = parse_relation_name(node.relation_name or "", session.adapter_type)
        if name is not None:
            databases.setdefault(name.database.lower() or here, {})[node.unique_id] = name
    found: dict[str, str] = {}
    for database, names in databases.items():
        try:
            with session.connection():
                known = read(session, database, names.values())
        except StatementError:
            continue
        for uid, name in names.items():
            if (definition := known.get((name.schema, name.identifier))) is not None:
                found[uid] = definition
    return found


def _read_postgres(session: WarehouseSession, database: str, names: Iterable[RelationName]) -> _Definitions:
    if database != session.database.lower():
        return {}
    schemas = name_array(sorted({name.schema for name in names}))
    identifiers = name_array(sorted({name.identifier for name in names}))
    rows = session.execute(_POSTGRES.format(schemas=schemas, names=identifiers))
    return {(schema, name): definition for schema, name, definition in rows}


def _read_duckdb(session: WarehouseSession, database: str, names: Iterable[RelationName]) -> _Definitions:
    del names  # the catalog is in memory
    rows = session.execute(_DUCKDB.format(database=literal(database)))
    return {(schema, name): definition for schema, name, definition in rows}


_READERS: Mapping[Catalog, Callable[[WarehouseSession, str, Iterable[RelationName]], _Definitions]] = {
    Catalog.DUCKDB: _read_duckdb,
    Catalog.POSTGRES: _read_postgres,
}
