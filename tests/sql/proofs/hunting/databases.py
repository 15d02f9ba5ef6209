"""The two real databases of the hunt."""

from __future__ import annotations

from contextlib import contextmanager


class QueryError(Exception):
    """The database cannot run a query."""


class DuckDB:
    dialect = "duckdb"
    is_duckdb = True
    collation = "varchar collate nocase"

    def __init__(self):
        import duckdb

        self.connection = duckdb.connect(config={"threads": 1})
        self.run("set scalar_subquery_error_on_multiple_rows = false")

    def run(self, sql: str):
        import duckdb

        try:
            return self.connection.execute(sql).fetchall()
        except duckdb.Error as error:
            if isinstance(error, duckdb.FatalException):
                # A defect of DuckDB itself. The tables are gone, and the queries until the next world fail.
                self.connection = duckdb.connect(config={"threads": 1})
            raise QueryError(str(error)) from error

    def enter(self, filling: int) -> None:
        self.run(f"use memory.w{filling}")

    def columns(self) -> list[str]:
        self.run("select * from made limit 0")
        return [column[0] for column in self.connection.description]

    def types(self, table: str) -> dict[str, str]:
        """Return the type of each column of a table of this filling, as the database names it."""
        return {name: type_ for name, type_, *_ in self.run(f"describe {table}")}

    def close(self) -> None:
        self.connection.close()


class Postgres:
    dialect = "postgres"
    is_duckdb = False
    collation = "text collate public.any_case"

    def __init__(self, server):
        self.connection = server.connect()
        self.cursor = self.connection.cursor()
        self.run("set jit = off; set synchronous_commit = off")
        options = "provider = icu, locale = 'und-u-ks-level2', deterministic = false"
        self.run(f"create collation if not exists public.any_case ({options})")

    def run(self, sql: str):
        import psycopg2

        try:
            self.cursor.execute(sql)
            return self.cursor.fetchall() if self.cursor.description else []
        except psycopg2.Error as error:
            raise QueryError(str(error)) from error

    def enter(self, filling: int) -> None:
        self.run(f"set search_path to w{filling}")

    def columns(self) -> list[str]:
        self.run("select * from made limit 0")
        return [column[0] for column in self.cursor.description]

    def types(self, table: str) -> dict[str, str]:
        """Return the type of each column of a table of this filling, as the database names it."""
        names = "attname, format_type(atttypid, atttypmod)"
        of_table = f"attrelid = '{table}'::regclass and attnum > 0 and not attisdropped"
        return dict(self.run(f"select {names} from pg_attribute where {of_table} order by attnum"))

    def close(self) -> None:
        # Other tests on the server ask whether there is such a collation.
        self.run("drop collation public.any_case cascade")
        self.connection.close()


@contextmanager
def made(database, filling: int, sql: str):
    """Make a table of a query, as dbt would, and drop it."""
    database.enter(filling)
    database.run(f"create temp table made as {sql}")
    try:
        yield
    finally:
        database.run("drop table made")
