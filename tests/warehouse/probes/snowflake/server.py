"""A local fakesnow server whose LAST_ALTERED moves as Snowflake's does. Runs in the environment of the Snowflake test.

Usage: python server.py PORT. fakesnow itself answers 1970-01-01 for every table, and leaves views out of
INFORMATION_SCHEMA.TABLES, where Snowflake has them. The times and that list are a simulation: what is real is the
adapter, its macros and its driver.
"""

from __future__ import annotations

import importlib
import sys

import uvicorn
from fakesnow import cursor, info_schema, instance
from sqlglot import exp

ALTERED = "_fs_global._fs_information_schema._fs_altered"
CHANGES = (
    exp.Insert,
    exp.Update,
    exp.Delete,
    exp.Merge,
    exp.Copy,
    exp.Create,
    exp.Alter,
    exp.Drop,
    exp.TruncateTable,
)


VIEWS = """(
    select database_name, schema_name, table_name, estimated_size, 'BASE TABLE' as kind from duckdb_tables()
    union all select database_name, schema_name, view_name, null, 'VIEW' from duckdb_views() where not internal
) tables"""


def list_views():
    view = info_schema.SQL_CREATE_INFORMATION_SCHEMA_TABLES_VIEW
    for text, instead in {"duckdb_tables tables": VIEWS, "'BASE TABLE' AS": "tables.kind AS"}.items():
        assert text in view.template
        view.template = view.template.replace(text, instead)


def move_last_altered():
    view = info_schema.SQL_CREATE_INFORMATION_SCHEMA_TABLES_VIEW
    constant = 'to_timestamp(0)::timestamptz AS "LAST_ALTERED"'
    assert constant in view.template
    moving = (
        f"(select max(moved) from {ALTERED} as altered where lower(altered.name) ="
        " lower(concat_ws('.', tables.database_name, tables.schema_name, tables.table_name))) AS \"LAST_ALTERED\""
    )
    view.template = view.template.replace(constant, moving)
    creation = info_schema.fs_global_creation_sql
    record = f"create table if not exists {ALTERED} (name varchar, moved timestamptz)"
    instance.info_schema.fs_global_creation_sql = lambda: f"{creation()};\n{record};"

    run = cursor.FakeSnowflakeCursor._execute

    def execute(self, transformed, params=None):
        result = run(self, transformed, params)
        if isinstance(transformed, CHANGES):
            for table in changed_tables(transformed):
                name = ".".join([table.catalog or self._conn.database, table.db or self._conn.schema, table.name])
                with self._duck_conn.cursor() as own:  # DuckDB writes one database per transaction
                    own.execute(f"insert into {ALTERED} values (?, now())", [name])
        return result

    cursor.FakeSnowflakeCursor._execute = execute


def changed_tables(statement):
    targets = statement.expressions if isinstance(statement, exp.TruncateTable) else [statement.this]
    if isinstance(statement, exp.Alter):  # a rename or swap: the other name too
        targets += statement.args.get("actions") or []
    tables = (table for target in targets if target for table in target.find_all(exp.Table))
    return [table for table in tables if table.name and "_fs_" not in table.db]


if __name__ == "__main__":
    list_views()
    move_last_altered()
    server = importlib.import_module("fakesnow.server")  # makes its tables when it is imported

    # fakesnow refuses ALTER SESSION; its texts of timestamps have all digits anyway.
    server.shared_fs.nop_regexes = ["alter session set timestamp"]
    uvicorn.run(server.app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
